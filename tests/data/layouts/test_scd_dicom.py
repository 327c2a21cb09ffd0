"""Laws of Sunnybrook as DICOM: outlines find their slice, phase and label."""

import numpy as np
import pytest

from ldm_jax.data.layouts.scd_dicom import read
from ldm_jax.data.layouts.shared import contours

TABLE = (
  '\ufeffPatientID,OriginalID,Gender,Age,Pathology\n'
  'SCD0000101,SC-HF-I-1,Male,59,Heart failure with infarct\n'
  'SCD0000201,SC-HF-I-2,Female,,Hypertrophy\n'
  'SCD0000301,SC-HF-I-3,Female,50,Unheard of\n'
)
ED, ES, FRAMES, SLICES = 0, 8, 20, 2


def square(low, high):
  corners = ((low, low), (high, low), (high, high), (low, high))
  return '\n'.join(f'{x} {y}' for x, y in corners)


@pytest.fixture(params=['upwards', 'downwards'])
def tree(request, tmp_path, save_dicom):
  """The published shape with two patients that have images, one with outlines.

  Files are numbered from base to apex or back: the number of an outline means the file.
  """
  (tmp_path / 'scd_patientdata.csv').write_text(TABLE, encoding='utf-8')
  for patient in ('SCD0000101', 'SCD0000201'):
    series = tmp_path / 'SCD_IMAGES_01' / patient / 'CINESAX_300'
    for number in range(1, SLICES * FRAMES + 1):
      z, t = divmod(number - 1, FRAMES)
      height = (1 - z if request.param == 'downwards' else z) * 8.0
      pixels = np.full((16, 14), 10, np.int16)
      pixels[3 : 6 + abs(t - ES) // 2, 3:7] = 100
      pixels[0, 0] = number
      save_dicom(
        series / f'IM-0003-{number:04d}.dcm',
        pixels,
        ImagePositionPatient=[0, 0, height],
        PixelSpacing=[1.25, 1.25],
        SliceThickness=8.0,
        TriggerTime=30.0 * t,
        InstanceNumber=number,
      )
  drawn = tmp_path / 'SCD_ManualContours' / 'SC-HF-I-01' / 'contours-manual'
  drawn = drawn / 'IRCCI-expert'
  drawn.mkdir(parents=True)
  for z in range(SLICES):
    for t, kind, size in ((ED, 'i', 7), (ED, 'o', 9), (ED, 'p1', 5), (ES, 'i', 5)):
      name = f'IM-0001-{z * FRAMES + t + 1:04d}-{kind}contour-manual.txt'
      (drawn / name).write_text(square(2.5, size + z + 0.5))
  return tmp_path


def test_outlines_lie_on_the_slice_and_phase_of_their_file(tree):
  cohort = read(str(tree))
  first = {r.phase: r for r in cohort.records if r.patient == 'SC-HF-I-01'}
  assert {r.phase_by for r in first.values()} == {'contours'}
  for phase, t in (('ED', ED), ('ES', ES)):
    scan, label = first[phase].source.read()
    voxels = scan.source.restore(scan.array)
    labels = scan.source.restore(label.array)
    for place in range(SLICES):
      z, found = divmod(int(voxels[0, 0, place]) - 1, FRAMES)
      assert found == t
      side = {'ED': 5, 'ES': 3}[phase] + z
      assert np.sum(labels[..., place] == contours.CAVITY) == side**2
      ring = (side + 2) ** 2 - side**2 if phase == 'ED' else 0
      assert np.sum(labels[..., place] == contours.MYOCARDIUM) == ring
      assert labels[3, 3, place] == contours.CAVITY
  voxel = 1.25 * 1.25 * 8 / 1000
  values = first['ED'].attributes
  assert values['LVEDV'] == pytest.approx((5**2 + 6**2) * voxel)
  assert values['LVESV'] == pytest.approx((3**2 + 4**2) * voxel)
  assert values['LVEF'] == pytest.approx(100 * (1 - 25 / 61))
  assert (values['AGE'], values['SEX'], values['DEPTH']) == (59, 1, 2)
  assert (values['PATHOLOGY'], values['ESED']) == ('Heart failure with infarct', 1)


def test_a_patient_without_outlines_is_estimated_and_says_so(tree):
  cohort = read(str(tree))
  second = {r.phase: r for r in cohort.records if r.patient == 'SC-HF-I-02'}
  assert second['ED'].phase_by == 'first_frame'
  assert second['ES'].phase_by == 'smallest_pool'
  assert second['ES'].attributes['LVESV'] is None
  scan, label = second['ES'].source.read()
  assert label is None and scan.array.shape == (2, 14, 16)
  notes = '\n'.join(cohort.notes)
  assert 'SC-HF-I-02: no outlines of two phases' in notes
  assert 'SC-HF-I-03: no folder SCD0000301' in notes


def test_outlines_of_another_series_are_refused_with_numbers(tree):
  (record,) = (r for r in read(str(tree)).records if r.id == 'SC-HF-I-01_ED')
  for path in (tree / 'SCD_IMAGES_01' / 'SCD0000101').rglob('*.dcm'):
    path.rename(path.with_name(path.name.replace('-00', '-10')))
  with pytest.raises(ValueError, match='and 4 on no file of the series'):
    record.source.read()


def test_a_changed_outline_changes_the_fingerprint(tree):
  (record,) = (r for r in read(str(tree)).records if r.id == 'SC-HF-I-01_ES')
  before = record.source.fingerprint()
  path = record.source.outlines[0][2]
  with open(path, 'w') as file:
    file.write(square(2.5, 4.5))
  assert record.source.fingerprint() != before


def test_a_root_without_cines_is_an_error(tmp_path):
  (tmp_path / 'scd_patientdata.csv').write_text(TABLE, encoding='utf-8')
  with pytest.raises(ValueError, match='CINESAX'):
    read(str(tmp_path))
