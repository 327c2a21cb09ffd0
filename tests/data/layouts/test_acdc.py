"""Laws of the ACDC layout, on a tree of its shape."""

import numpy as np
import pytest

from ldm_jax.data import layouts
from ldm_jax.data.cohorts.attributes import Schema

read = layouts.LAYOUTS['acdc'].read
AFFINE = np.diag([2.0, 2.0, 10.0, 1.0])
VOXEL_ML = 0.04


@pytest.fixture
def tree(tmp_path, save_nifti):
  """Patients 001 (training) and 101 (testing): a cine of 3 frames, ED 1 and ES 3."""

  def make(base='database', info='ED: 1\nES: 3\nGroup: DCM\nHeight: 180.0\n'):
    for part, patient in (('training', 'patient001'), ('testing', 'patient101')):
      folder = tmp_path / base / part / patient
      cine = np.random.default_rng(0).integers(1, 99, (8, 7, 5, 3)).astype(np.int16)
      save_nifti(folder / f'{patient}_4d.nii.gz', cine, AFFINE)
      for frame, size in ((1, 4), (3, 2)):
        own = np.zeros((8, 7, 5), np.uint8)
        own[:size, 0], own[:size, 1], own[0, 2] = 3, 2, 1  # LV, muscle, RV
        stem = folder / f'{patient}_frame{frame:02d}'
        save_nifti(f'{stem}.nii.gz', cine[..., frame - 1], AFFINE)
        save_nifti(f'{stem}_gt.nii.gz', own, AFFINE)
      text = f'{info}NbFrame: 3\nWeight: 81,0\n'
      (folder / 'Info.cfg').write_bytes(b'\xef\xbb\xbf' + text.encode())
    return tmp_path

  return make


def test_frames_count_from_one_and_labels_have_the_common_meaning(tree):
  cohort = read(tree())
  assert [r.id for r in cohort.records[:2]] == ['patient001_ED', 'patient001_ES']
  for record, size, frame in zip(cohort.records, (4, 2), (1, 3), strict=False):
    assert record.source.image.endswith(f'frame{frame:02d}.nii.gz')
    scan, label = record.source.read()
    assert scan.array.shape == label.array.shape == (5, 7, 8)
    assert [(label.array == code).sum() for code in (1, 2, 3)] == [
      5 * size,
      5 * size,
      5,
    ]


def test_volumes_are_measured_and_height_and_weight_make_the_bmi(tree):
  first, second = read(tree()).patients['patient001']
  assert first.attributes['LVEDV'] == pytest.approx(20 * VOXEL_ML)
  assert first.attributes['LVESV'] == pytest.approx(10 * VOXEL_ML)
  assert first.attributes['RVEF'] == 0 and first.attributes['LVEF'] == 50
  assert first.attributes['BMI'] == pytest.approx(25)
  assert (first.attributes['ESED'], second.attributes['ESED']) == (1, 0)
  assert first.attributes['PATHOLOGY'] == 'DCM' and first.attributes['DEPTH'] == 5


@pytest.mark.parametrize('base', ['database', 'ACDC/database', '.'])
def test_the_published_parts_are_found_wherever_the_root_is(tree, base):
  cohort = read(tree(base))
  assert set(cohort.published('train').patients) == {'patient001'}
  assert set(cohort.published('test').patients) == {'patient101'}


def test_without_a_frame_of_its_own_a_phase_is_taken_from_the_cine(tree):
  root = tree()
  folder = root / 'database/training/patient001'
  before = read(root).records[1].source.read()
  (folder / 'patient001_frame03.nii.gz').unlink()
  record = read(root).records[1]
  assert record.source.frame == 2
  for one, other in zip(before, record.source.read(), strict=True):
    assert (one.array == other.array).all()


def test_missing_labels_and_an_unknown_group_are_notes(tree):
  root = tree(info='ED: 1\nES: 3\nGroup: XYZ\n')
  for path in (root / 'database/testing/patient101').glob('*_gt.nii.gz'):
    path.unlink()
  cohort = read(root)
  record = cohort.patients['patient101'][0]
  assert record.source.label is None and record.attributes['LVEDV'] is None
  for note in ('no labels at ES', "group 'XYZ'", 'no height or weight'):
    assert any(f'patient101: {note}' in n or note in n for n in cohort.notes), note


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda f: (f / 'Info.cfg').unlink(), 'Info.cfg does not exist'),
    (lambda f: (f / 'Info.cfg').write_text('ED: one\nES: 2'), "ED as 'one'"),
    (lambda f: (f / 'Info.cfg').write_text('ED: 0\nES: 2'), 'from 1'),
    (lambda f: (f / 'Info.cfg').write_text(''), "ED as ''"),
    (lambda f: [p.unlink() for p in f.glob('*.nii.gz')], 'neither patient001_frame01'),
  ],
)
def test_a_faulty_patient_stays_in_the_cohort_with_its_reason(tree, change, message):
  root = tree()
  change(root / 'database/training/patient001')
  cohort = read(root)
  (record,) = cohort.patients['patient001']
  with pytest.raises(ValueError, match=message):
    record.source.read()
  assert record.part == 'train' and len(cohort.patients['patient101']) == 2


def test_an_attribute_that_acdc_does_not_have_is_an_error(tree):
  schema = Schema.from_config([{'name': 'AGE', 'low': 0, 'high': 99}])
  with pytest.raises(ValueError, match=r"'AGE'.*LVEDV"):
    read(tree(), schema=schema)
  (tree() / 'x').mkdir()
  with pytest.raises(ValueError, match='does not exist'):
    read(tree() / 'none')


def test_a_folder_of_something_else_is_an_error(tmp_path):
  (tmp_path / 'x').write_text('')
  with pytest.raises(ValueError, match='patient001'):
    read(tmp_path)
