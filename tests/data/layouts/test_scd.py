"""Laws of the Sunnybrook layout, on a tree of its shape and on the real one."""

import numpy as np
import pytest

from ldm_jax.data import layouts
from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA, Schema

HEADER = ['PatientID', 'OriginalID', 'Sex', 'Age', 'Pathology', 'ED_slices']
HEADER += ['ED_lv_vox', 'ES_slices', 'ES_lv_vox', 'EF_from_labels', 'extra']
ROWS = [
  ['SCD1', 'SC-HF-I-01', 'M', '48', 'Normal', '6', '40', '5', '10', '75.0', 'x'],
  ['SCD2', 'SC-N-02', 'F', '', 'hypertrophy', '6', '', '6', '', '', ''],
  ['SCD3', 'SC-N-03', '', '61', 'Rare', '6', '40', '6', '20', '50', ''],
]
read = layouts.LAYOUTS['scd'].read


@pytest.fixture
def tree(tmp_path, save_nifti):
  """Three patients: complete, without table volumes, without an ES stack."""

  def make(rows=ROWS, header=HEADER):
    lines = ['\t'.join(row) for row in [header, *rows]]
    (tmp_path / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    affine = np.diag([1.5, 1.5, 8.0, 1.0])
    for number, (name, phases) in enumerate(
      [('SC-HF-I-01', 'ED ES'), ('SC-N-02', 'ED ES'), ('SC-N-03', 'ED')]
    ):
      for phase in phases.split():
        shape = (12, 10, 6 if phase == 'ED' else 5)
        label = np.zeros(shape, np.uint8)
        label[4:6, 4 : 6 if phase == 'ED' else 5, :4] = 1
        stem = tmp_path / name / f'{name}_{phase}'
        save_nifti(f'{stem}.nii.gz', affine=affine, shape=shape, seed=number)
        save_nifti(f'{stem}_gt.nii.gz', label, affine)
    return tmp_path

  return make


def test_one_patient_is_two_records_with_shared_volumes_in_ml(tree):
  cohort = read(tree())
  assert len(cohort) == 3 and len(cohort.records) == 5
  first, second = cohort.patients['SC-HF-I-01']
  assert (first.phase, second.phase) == ('ED', 'ES')
  for record, phase, slices in ((first, 1, 6), (second, 0, 5)):
    assert record.attributes['LVEDV'] == pytest.approx(40 * 0.018)
    assert record.attributes['LVESV'] == pytest.approx(10 * 0.018)
    assert record.attributes['LVEF'] == 75
    assert record.attributes['ESED'] == phase
    assert record.attributes['DEPTH'] == slices
    assert record.attributes['PATHOLOGY'] == 'Normal'
    assert (record.attributes['SEX'], record.attributes['AGE']) == (1, 48)
    scan, label = record.source.read()
    assert scan.array.shape == (slices, 10, 12) == label.array.shape


def test_volumes_missing_from_the_table_come_from_the_labels(tree):
  record = read(tree()).patients['SC-N-02'][0]
  assert record.attributes['LVEDV'] == pytest.approx(16 * 0.018)
  assert record.attributes['LVESV'] == pytest.approx(8 * 0.018)
  assert record.attributes['LVEF'] == pytest.approx(50)
  assert record.attributes['AGE'] is None
  assert record.attributes['PATHOLOGY'] == 'Hypertrophy'


def test_a_missing_stack_or_an_unknown_pathology_is_a_note(tree):
  cohort = read(tree())
  (record,) = cohort.patients['SC-N-03']
  assert record.attributes['LVESV'] == pytest.approx(20 * 0.018)
  assert record.attributes['PATHOLOGY'] is None and record.attributes['SEX'] is None
  assert any('SC-N-03: no ES' in note for note in cohort.notes)
  assert any("'Rare'" in note for note in cohort.notes)
  assert np.isnan(cohort.schema.encode(record.attributes)).sum() == 2


def test_a_folder_without_a_row_and_a_row_without_a_folder_are_notes(tree):
  rows = [ROWS[0], ROWS[2], [ROWS[0][0], 'SC-HYP-09', *ROWS[0][2:]]]
  cohort = read(tree(rows))
  assert len(cohort) == 3
  attributes = cohort.patients['SC-N-02'][0].attributes
  assert attributes['LVEDV'] == pytest.approx(16 * 0.018)
  assert attributes['AGE'] is None
  assert any('SC-HYP-09' in note for note in cohort.notes)


def test_unpadded_ids_find_their_folder(tree):
  rows = [[ROWS[0][0], 'SC-HF-I-1', *ROWS[0][2:]]]
  assert 'SC-HF-I-1' in read(tree(rows)).patients


def test_a_damaged_stack_stays_a_record_for_prepare_to_list(tree):
  root = tree()
  (root / 'SC-HF-I-01' / 'SC-HF-I-01_ES.nii.gz').write_bytes(b'')
  record = read(root).patients['SC-HF-I-01'][1]
  assert record.attributes['DEPTH'] is None
  assert record.attributes['LVESV'] == pytest.approx(10 * 0.018)
  with pytest.raises(ValueError, match='_ES'):
    record.source.read()


def test_a_schema_may_select_and_add_columns(tree):
  schema = Schema(
    (
      *CARDIAC_SCHEMA.select(['AGE', 'LVEDV']),
      *Schema.from_config(
        [{'name': 'slices', 'column': 'ES_slices', 'low': 1, 'high': 9}]
      ),
    )
  )
  record = read(tree(), schema=schema).records[0]
  assert record.attributes == {'AGE': 48, 'LVEDV': pytest.approx(0.72), 'slices': 5}


@pytest.mark.parametrize(
  ('cell', 'text', 'words'),
  [
    (3, 'old', "line 2, column 'Age'.*old"),
    (6, 'many', "column 'ED_lv_vox'.*many"),
    (2, 'Q', "column 'Sex'.*Q"),
  ],
)
def test_a_patient_with_a_bad_cell_stays_out_with_the_reason(tree, cell, text, words):
  row = list(ROWS[0])
  row[cell] = text
  (record,) = [r for r in read(tree([row])).records if r.patient == ROWS[0][1]]
  with pytest.raises(ValueError, match=words):
    record.source.read()


def test_a_row_without_an_id_is_an_error(tree):
  row = list(ROWS[0])
  row[1] = ''
  with pytest.raises(ValueError, match='no id'):
    read(tree([row]))


def test_a_repeated_patient_is_an_error(tree):
  with pytest.raises(ValueError, match=r'SC-HF-I-01.*twice'):
    read(tree([ROWS[0], ROWS[0]]))


def test_a_folder_of_something_else_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='does not exist'):
    read(tmp_path / 'none')
  with pytest.raises(ValueError, match='empty'):
    read(tmp_path)
  (tmp_path / 'participants.tsv').write_text('OriginalID\nSC-N-01\n')
  with pytest.raises(ValueError, match=r'SC|_ED\.nii\.gz'):
    read(tmp_path)
  (tmp_path / 'participants.tsv').write_text('name\nSC-N-01\n')
  with pytest.raises(ValueError, match=r"'OriginalID'.*columns are name"):
    read(tmp_path)


def test_real_patients_have_all_attributes_within_their_ranges(real_data):
  cohort = read(real_data / 'scd')
  assert len(cohort) >= 30 and not cohort.notes
  for record in cohort.records:
    assert not np.isnan(cohort.schema.encode(record.attributes)).any()
    assert not cohort.schema.out_of_range(record.attributes)
  scan, label = cohort.records[0].source.read()
  expected = {'ED': 'LVEDV', 'ES': 'LVESV'}[cohort.records[0].phase]
  measured = (label.array == 1).sum() * scan.voxel_ml
  assert cohort.records[0].attributes[expected] == pytest.approx(measured)
