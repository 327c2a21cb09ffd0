"""Laws of synthetic DICOM: our reader finds volume and place again; nobody is named."""

import numpy as np
import pydicom
import pytest

from ldm_jax.data.readers import volume
from ldm_jax.data.readers.grid import centred_affine
from ldm_jax.sharing import dataset, dicom
from tests.sharing.test_dataset import ABOUT, SCHEMA, VECTORS, VOLUMES

PROTECTED = {**ABOUT, 'protected': True, 'warning': '', 'suffix': '', 'modality': 'MR'}
STRAIGHT = centred_affine((4, 5, 6), (3.0, 2.0, 1.5))
ANGLE = np.deg2rad(20)
OBLIQUE = (
  np.array(
    [
      [np.cos(ANGLE), -np.sin(ANGLE), 0, 17.5],
      [np.sin(ANGLE), np.cos(ANGLE), 0, -3],
      [0, 0, 1, 8],
      [0, 0, 0, 1],
    ]
  )
  @ STRAIGHT
)


def write(place, x, affine, about=PROTECTED):
  place.mkdir(parents=True, exist_ok=True)
  contents = dicom.slices(
    x, affine, name='synthetic_00003', note='SYNTHETIC', about=about
  )
  for index, content in enumerate(contents):
    (place / f'{index}.dcm').write_bytes(content)
  return [pydicom.dcmread(path) for path in sorted(place.iterdir())]


@pytest.mark.parametrize('modality', list(dicom.STORED_AS))
@pytest.mark.parametrize('affine', [STRAIGHT, OBLIQUE], ids=['straight', 'oblique'])
def test_our_reader_finds_values_and_place_again(tmp_path, affine, modality):
  write(tmp_path, VOLUMES[0], affine, {**PROTECTED, 'modality': modality})
  found = volume.read(tmp_path)
  assert np.allclose(found.affine, affine, atol=1e-6)
  assert np.abs(found.array - VOLUMES[0]).max() <= 0.5 / dicom.LARGEST + 1e-7


def test_a_film_of_one_slice_is_read_back(tmp_path):
  x, affine = VOLUMES[0][:1], centred_affine((1, 5, 6), (1.0, 2.0, 1.5))
  write(tmp_path, x, affine, {**PROTECTED, 'modality': 'OT'})
  found = volume.read(tmp_path)
  assert np.allclose(found.affine, affine, atol=1e-6)
  assert np.abs(found.array - x).max() <= 0.5 / dicom.LARGEST + 1e-7


def test_a_voxel_lies_where_the_affine_says_in_the_coordinates_of_dicom(tmp_path):
  x = np.zeros((4, 5, 6), np.float32)
  x[2, 1, 3] = 1.0
  (plane,) = [f for f in write(tmp_path, x, OBLIQUE) if f.pixel_array.any()]
  r, c = np.argwhere(plane.pixel_array)[0]
  # [PS3.3] C.7.6.2.1.1, the mapping of pixels to patient coordinates.
  to_right, down = np.reshape(plane.ImageOrientationPatient, (2, 3)).astype(float)
  rows_mm, columns_mm = plane.PixelSpacing
  place = (
    np.array(plane.ImagePositionPatient, float)
    + to_right * columns_mm * c
    + down * rows_mm * r
  )
  expected = (OBLIQUE @ [2, 1, 3, 1])[:3] * (-1, -1, 1)
  assert np.allclose(place, expected, atol=1e-6)
  # As radiologists see it: left of the person at the right, the back at the bottom.
  assert to_right[0] > 0.9 and down[1] > 0.9


def test_every_file_says_that_it_is_synthetic_and_has_no_date_and_nobody(tmp_path):
  files = write(tmp_path, VOLUMES[0], STRAIGHT)
  for file in files:
    assert list(file.ImageType)[:2] == ['DERIVED', 'SECONDARY']
    assert file.SyntheticData == 'YES' and 'SYNTHETIC' in file.ImageType
    for keyword in ('PatientName', 'PatientID', 'SeriesDescription'):
      assert str(file[keyword].value).startswith('SYNTHETIC')
    assert file.PatientIdentityRemoved == 'YES' and file.BurnedInAnnotation == 'NO'
    assert not file.PatientBirthDate and not file.PatientSex
    assert not [e for e in file if e.VR in ('DA', 'TM', 'DT') and e.value]
  unprotected = write(tmp_path / 'b', VOLUMES[0], STRAIGHT, ABOUT | {'modality': 'CT'})
  assert 'PatientIdentityRemoved' not in unprotected[0]


def test_slices_share_a_series_and_other_volumes_have_other_uids(tmp_path):
  first = write(tmp_path / 'a', VOLUMES[0], STRAIGHT)
  again = write(tmp_path / 'b', VOLUMES[0], STRAIGHT)
  other = write(tmp_path / 'c', VOLUMES[1], STRAIGHT)
  assert len({f.SeriesInstanceUID for f in first}) == 1
  assert len({f.SOPInstanceUID for f in first}) == len(first)
  assert [f.SOPInstanceUID for f in first] == [f.SOPInstanceUID for f in again]
  assert first[0].SeriesInstanceUID != other[0].SeriesInstanceUID
  assert first[0].StudyInstanceUID != other[0].StudyInstanceUID


def test_values_that_16_bits_cannot_hold_are_refused(tmp_path):
  with pytest.raises(ValueError, match='Expected a volume in'):
    write(tmp_path, VOLUMES[0] + 1, STRAIGHT)


@pytest.mark.parametrize('suffix', ['T1w', ''])
def test_a_data_set_has_a_series_for_each_volume_beside_its_own_files(tmp_path, suffix):
  about = {**PROTECTED, 'suffix': suffix}
  options = {'seed': 0, 'origin': 'o', 'as_dicom': True}
  dataset.write(tmp_path, [VOLUMES], VECTORS, SCHEMA, STRAIGHT, about, **options)
  folders = sorted((tmp_path / 'dicom').iterdir())
  assert len(folders) == 3
  for folder, x in zip(folders, VOLUMES, strict=True):
    assert np.allclose(volume.read(folder).array, x, atol=1e-5)
  ignored = tmp_path / '.bidsignore'
  assert ignored.read_text() == '/dicom\n' if suffix else not ignored.exists()
