"""Laws of one DICOM file: its values, compressions and refusals."""

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless, RLELossless

from ldm_jax.data.readers import volume


def test_monochrome1_reads_as_its_monochrome2_twin(tmp_path, save_dicom):
  pixels = np.arange(30, dtype=np.uint8).reshape(6, 5)
  twin = save_dicom(tmp_path / 'b.dcm', pixels)
  inverse = save_dicom(
    tmp_path / 'a.dcm', 255 - pixels, PhotometricInterpretation='MONOCHROME1'
  )
  np.testing.assert_array_equal(volume.read(inverse).array, volume.read(twin).array)


@pytest.mark.parametrize('syntax', [RLELossless, JPEG2000Lossless])
def test_compressed_pixels_are_the_plain_ones(tmp_path, save_dicom, syntax):
  pixels = np.random.default_rng(0).integers(0, 4000, (64, 48)).astype(np.uint16)
  packed = save_dicom(tmp_path / 'packed.dcm', pixels, syntax)
  plain = save_dicom(tmp_path / 'plain.dcm', pixels)
  np.testing.assert_array_equal(volume.read(packed).array, volume.read(plain).array)


def test_the_codecs_of_all_usual_compressions_are_installed():
  for uid in ('4.50', '4.51', '4.57', '4.70', '4.80', '4.81', '4.90', '4.91', '5'):
    uid = pydicom.uid.UID(f'1.2.840.10008.1.2.{uid}')
    assert pydicom.pixels.get_decoder(uid).is_available, uid.name


@pytest.mark.parametrize(
  ('elements', 'message'),
  [
    ({'PixelData': None}, 'holds no pixels'),
    ({'PixelData': b'\0' * 10}, 'truncated'),
    ({'Rows': 60000}, 'truncated'),
    ({'Rows': 60000, 'Columns': 60000}, 'announces'),
    ({'Rows': None}, 'without Rows and Columns'),
    ({'ImagePositionPatient': None}, 'no ImagePositionPatient of 3 numbers'),
    ({'ImageOrientationPatient': [1, 0, 0, 1, 0, 0]}, 'no right angle'),
    ({'ImageOrientationPatient': [0] * 6}, 'no right angle'),
    ({'PixelSpacing': [0, 1]}, 'pixels of 0 x 1 mm'),
    ({'PixelSpacing': None}, 'no PixelSpacing'),
    ({'PhotometricInterpretation': 'RGB'}, 'colours'),
    ({'SamplesPerPixel': 3}, 'colours'),
    ({'NumberOfFrames': 3}, 'without their positions'),
    ({'RescaleSlope': 0}, 'RescaleSlope 0'),
    ({'SliceThickness': None}, 'no thickness'),
  ],
)
def test_what_cannot_be_read_has_a_verdict(tmp_path, save_dicom, elements, message):
  path = save_dicom(tmp_path / 'a.dcm', **elements)
  with pytest.raises(ValueError, match=message) as error:
    volume.read(path)
  assert str(path) in str(error.value)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**30), st.binary(min_size=1, max_size=6), st.floats(0, 1))
def test_a_damaged_file_is_a_value_error_or_a_volume(
  tmp_path_factory, save_dicom, place, bytes_, keep
):
  path = save_dicom(tmp_path_factory.mktemp('fuzz') / 'a.dcm')
  content = bytearray(path.read_bytes())
  place %= len(content)
  content[place : place + len(bytes_)] = bytes_
  path.write_bytes(content[: max(140, int(len(content) * min(1, 2 * keep)))])
  try:
    scan = volume.read(path)
  except ValueError as error:
    assert str(path) in str(error)
  else:
    assert np.isfinite(scan.array).all()
