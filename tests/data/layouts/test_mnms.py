"""Laws of the M&Ms layout, on a tree of its shape."""

import numpy as np
import pytest

from ldm_jax.data import layouts
from ldm_jax.data.cohorts.attributes import Schema

AFFINE = np.diag([1.0, 1.0, 10.0, 1.0])
HEADER = ',External code,VendorName,Vendor,Centre,ED,ES,Age,Pathology,Sex,Height,Weight'
ROWS = (
  '0,A0S9V9,Siemens,A,1,0,2,67,HCM,F,160.0,"64,0"',
  '1,B1U1B1,GE,C,4,1.0,2.0,n/a,Strange,M,,',
  '2,C2V2C2,Canon,D,5,1,0,41,NOR,M,180,81',
  '3,Z9Z9Z9,Philips,B,2,0,1,50,NOR,F,,',
)
TABLE = '211230_M&Ms_Dataset_information_diagnosis_opendataset.csv'
mnms = layouts.LAYOUTS['mnms'].read


def heart(size):
  own = np.zeros((8, 7, 5), np.uint8)
  own[:size, 0], own[:size, 1], own[0, 2] = 1, 2, 3  # LV, muscle, RV
  return own


@pytest.fixture
def tree(tmp_path, save_nifti):
  """A0S9V9 labelled, B1U1B1 with a `_gt` that is no label, C2V2C2 in Testing."""

  def make(header=HEADER, rows=ROWS, base='OpenDataset'):
    folders = ('Training/Labeled', 'Training/Unlabeled', 'Testing')
    for part, code in zip(folders, ('A0S9V9', 'B1U1B1', 'C2V2C2'), strict=True):
      cine = np.random.default_rng(0).integers(1, 99, (8, 7, 5, 3)).astype(np.int16)
      masks = np.stack([heart(6), heart(0), heart(3)], -1)
      folder = tmp_path / base / part / code
      save_nifti(folder / f'{code}_sa.nii.gz', cine, AFFINE)
      save_nifti(folder / f'{code}_sa_gt.nii.gz', masks, AFFINE)
    (tmp_path / base / TABLE).write_text('\n'.join([header, *rows]) + '\n')
    return tmp_path

  return make


def test_frames_count_from_zero_and_choose_scan_and_labels_of_the_cine(tree):
  first, second = mnms(tree()).patients['A0S9V9']
  assert (first.source.frame, second.source.frame) == (0, 2)
  for record, size in ((first, 6), (second, 3)):
    scan, label = record.source.read()
    assert scan.array.shape == (5, 7, 8)
    assert [(label.array == c).sum() for c in (1, 2, 3)] == [5 * size, 5 * size, 5]
  assert first.attributes['LVEDV'] == pytest.approx(0.3)
  assert first.attributes['LVESV'] == pytest.approx(0.15)


def test_the_table_gives_age_sex_bmi_vendor_and_pathology(tree):
  values = mnms(tree()).patients['A0S9V9'][0].attributes
  assert (values['AGE'], values['SEX'], values['VENDOR']) == (67, 0, 'A')
  assert values['BMI'] == pytest.approx(25) and values['PATHOLOGY'] == 'HCM'


def test_files_called_gt_are_no_labels_in_the_unlabeled_folder(tree):
  cohort = mnms(tree())
  for record in cohort.patients['B1U1B1']:
    assert record.source.label is None and record.part == 'unlabeled'
    assert record.attributes['LVEDV'] is None and record.attributes['AGE'] is None
  assert any("'strange' is not known" in note for note in cohort.notes)
  assert {r.part for r in cohort.records} == {'train', 'unlabeled', 'test'}
  assert any('Z9Z9Z9: in' in note for note in cohort.notes)


def test_a_table_without_height_and_weight_lacks_the_bmi_only(tree):
  cut = [row.rsplit(',', 2)[0] for row in ROWS[1:]]
  header = HEADER.rsplit(',', 2)[0]
  first = '0,A0S9V9,Siemens,A,1,0,2,67,HCM,F'
  values = mnms(tree(header, [first, *cut])).records[0].attributes
  assert values['BMI'] is None and values['AGE'] == 67


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    (ROWS[1:], r'A0S9V9 has 0 rows'),
    ((ROWS[0], *ROWS), r'A0S9V9 has 2 rows'),
    ((ROWS[0].replace(',0,2,', ',,2,'), *ROWS[1:]), r"'ED': the frame is ''"),
    ((ROWS[0].replace(',0,2,', ',-1,2,'), *ROWS[1:]), r"frame is '-1'"),
    ((ROWS[0].replace(',67,', ',old,'), *ROWS[1:]), r"line 2, column 'Age'.*old"),
    (
      (ROWS[0].replace(',0,2,', ',0,9,'), *ROWS[1:]),
      r'holds 3 frames; expected a frame from 0 to 2, got 9',
    ),
  ],
)
def test_a_faulty_patient_stays_in_the_cohort_with_its_reason(tree, rows, message):
  cohort = mnms(tree(rows=rows))
  faults = []
  for record in cohort.patients['A0S9V9']:
    try:
      record.source.read()
    except ValueError as error:
      faults.append(str(error))
  assert len(faults) == 1
  with pytest.raises(ValueError, match=message):
    raise ValueError(faults[0])
  assert len(cohort.patients['C2V2C2']) == 2


def test_other_columns_are_attributes_when_the_schema_names_them(tree):
  schema = Schema.from_config([{'name': 'Centre', 'low': 1, 'high': 6}])
  assert mnms(tree(), schema=schema).records[0].attributes == {'Centre': 1}
  schema = Schema.from_config([{'name': 'Center', 'low': 1, 'high': 6}])
  with pytest.raises(ValueError, match=r"no column 'Center'.*Centre"):
    mnms(tree(), schema=schema)


def test_a_folder_of_something_else_is_an_error(tmp_path):
  (tmp_path / 'information.csv').write_text('External code\nx\n')
  with pytest.raises(ValueError, match='OpenDataset'):
    mnms(tmp_path)
