"""Laws of the folder layout: any NIfTI files with one table."""

import numpy as np
import pytest

from ldm_jax.data import layouts
from ldm_jax.data.cohorts.attributes import Attribute, Schema

AGE = Schema.from_config([{'name': 'age', 'low': 0, 'high': 100}])
read = layouts.LAYOUTS['folder'].read


@pytest.fixture
def tree(tmp_path, save_nifti):
  """Writes the table and one scan per named path."""

  def make(table, *paths, name='participants.tsv', encoding='utf-8'):
    (tmp_path / name).write_bytes(table.encode(encoding))
    for number, path in enumerate(paths):
      voxels = np.ones((6, 5, 4), np.uint8) if 'seg' in path else None
      save_nifti(tmp_path / path, voxels, seed=number)
    return tmp_path

  return make


@pytest.mark.parametrize(
  'pattern', ['{}.nii', '{}.nii.gz', '{}_T1w.nii.gz', '{}/anat.nii', 'images/{}.nii.gz']
)
def test_usual_file_names_are_found_without_options(tree, pattern):
  root = tree('subject,age\n01,20\n02,\n', *map(pattern.format, ('01', '02')))
  cohort = read(root, schema=AGE)
  assert [r.id for r in cohort.records] == ['01', '02']
  assert [r.attributes['age'] for r in cohort.records] == [20, None]
  assert cohort.records[0].source.read()[0].array.shape == (4, 5, 6)


@pytest.mark.parametrize('name', ['participants.csv', 'clinic.csv', 'clinic.tsv'])
def test_table_name_separator_and_mark_do_not_matter(tree, name):
  separator = '\t' if name.endswith('tsv') else ';'
  text = 'subject,age\na,20\n'.replace(',', separator)
  root = tree(text, 'a.nii', name=name, encoding='utf-8-sig')
  assert read(root, schema=AGE).records[0].patient == 'a'


def test_columns_of_paths_and_of_labels(tree):
  root = tree(
    'who\tscan file\tseg\tYears\nx\tdeep/s1.nii\tdeep/seg1.nii\t30\ny\ts2.nii\t\t40\n',
    'deep/s1.nii',
    'deep/seg1.nii',
    's2.nii',
  )
  schema = Schema.from_config(
    [{'name': 'age', 'column': 'Years', 'low': 0, 'high': 100}]
  )
  cohort = read(root, schema=schema, subject='who', image='scan file', label='seg')
  assert [r.attributes['age'] for r in cohort.records] == [30, 40]
  assert cohort.records[0].source.read()[1].array.max() == 1
  assert cohort.records[1].source.label is None


def test_patterns_may_hold_any_column_and_keep_labels_apart(tree):
  root = tree(
    'subject,site,age\na,X,1\nb,Y,2\n',
    *[f'{s}/{p}/{p}{e}.nii.gz' for s, p in ('Xa', 'Yb') for e in ('', '_seg')],
  )
  options = {
    'image': '{site}/{subject}/*.nii.gz',
    'label': '{site}/*/{subject}_seg.nii*',
  }
  cohort = read(root, schema=AGE, **options)
  assert [r.id for r in cohort.records] == ['a', 'b']
  assert cohort.records[1].source.label.endswith('b_seg.nii.gz')


def test_several_files_of_a_patient_are_records_of_one_patient(tree):
  root = tree('subject,age\na,1\n', 'a/one.nii', 'a/two.nii')
  with pytest.raises(ValueError, match=r'one\.nii, a/two\.nii.*options\.image'):
    read(root, schema=AGE)
  cohort = read(root, schema=AGE, image='{subject}/*.nii')
  assert len(cohort) == 1 and [r.id for r in cohort.records] == ['a_one', 'a_two']


def test_visits_tell_the_scans_of_a_patient_apart(tree):
  root = tree('subject,ses,age\na,1,50\na,2,52\n', 'a_1.nii', 'a_2.nii')
  with pytest.raises(ValueError, match=r"line 3.*'a'.*line 2.*options\.visit"):
    read(root, schema=AGE, image='{subject}_{ses}.nii')
  cohort = read(root, schema=AGE, image='{subject}_{ses}.nii', visit='ses')
  assert [(r.id, r.visit) for r in cohort.records] == [('a_1', '1'), ('a_2', '2')]
  assert len(cohort) == 1


def test_a_row_without_a_scan_is_a_note(tree):
  cohort = read(tree('subject,age\na,1\nb,2\n', 'a.nii'), schema=AGE)
  assert len(cohort) == 1 and len(cohort.notes) == 1 and 'b' in cohort.notes[0]


def test_without_a_schema_the_error_shows_how_to_state_one(tree):
  root = tree('subject,age,sex\na,1,F\n', 'a.nii')
  with pytest.raises(ValueError, match=r'age, sex.*data\.schema.*private'):
    read(root)
  assert read(root, schema=Schema()).records[0].attributes == {}


@pytest.mark.parametrize(
  ('table', 'options', 'words'),
  [
    ('subject,years\na,1\n', {}, r"'age'.*subject, years.*data\.schema"),
    ('subject,age\na,1\n', {'subject': 'who'}, "'who'.*options.subject"),
    ('subject,age\na,1\n', {'image': 'scan'}, "'scan'.*subject, age"),
    ('subject,age\na,1\n', {'image': '{who}.nii'}, 'who.*subject, age'),
    ('subject,age\na,1\n', {'label': 'seg'}, "options.label is 'seg'"),
    ('subject,age\na,1\n', {'visit': 'ses'}, "'ses'.*options.visit"),
    ('subject,age\na,1\n', {'table': 'x.csv'}, r'x\.csv does not exist'),
    ('subject,age\n,1\n', {}, 'no id'),
    ('subject,age\nzzz,1\n', {}, r'no \.nii.*options\.image'),
    ('subject,age\nzzz,1\n', {'image': '{subject}.nii'}, 'no file for'),
  ],
)
def test_a_wrong_table_or_option_is_an_error_that_names_it(tree, table, options, words):
  with pytest.raises(ValueError, match=words):
    read(tree(table, 'a.nii'), schema=AGE, **options)


def test_patients_whose_cells_are_at_fault_stay_out_and_all_cells_are_named(tree):
  table = 'subject,age,sex\na,18-38,x\nb,45Y,Female\nc,"62,5",m\nd,33,9\n'
  schema = (*AGE, Attribute('sex', 'categorical', categories=('F', 'M')))
  cohort = read(tree(table, 'a.nii', 'b.nii', 'c.nii', 'd.nii'), schema=Schema(schema))
  faults = {r.id: getattr(r.source, 'reason', '') for r in cohort.records}
  assert [bool(faults[name]) for name in 'abcd'] == [True, False, False, True]
  for word in ("line 2, column 'age'", "'18-38'", "line 2, column 'sex'", "'x'"):
    assert word in faults['a']
  values = {r.id: r.attributes for r in cohort.records}
  assert values['b'] == {'age': 45, 'sex': 'F'}
  assert values['c'] == {'age': 62.5, 'sex': 'M'}


@pytest.mark.parametrize(
  'file', ['{}.nii', '{}_T1.nii', '{}/scan.nii', 'images/{}.nii', 'folder of DICOM']
)
def test_ids_may_differ_from_names_of_files_by_leading_zeros(tree, file):
  ids, image = ('0050772', '0050773'), ''
  names = [file.format(name) for name in ids if '{}' in file]
  root = tree('subject,age\n50772,30\n50773.0,40\n', *names)
  if not names:
    image = '{subject}'
    for name in ids:
      (root / name).mkdir()
  found = read(root, schema=AGE, image=image)
  assert [r.attributes['age'] for r in found.records] == [30, 40]
  assert all('005077' in r.source.image for r in found.records)
  assert found.matching.headline == '' and 'leading zeros' in found.notes[0]


def test_a_missing_or_empty_folder_is_an_error(tmp_path):
  for root, words in ((tmp_path / 'x', 'does not exist'), (tmp_path, 'empty')):
    with pytest.raises(ValueError, match=words):
      read(root, schema=AGE)


def test_strange_names_are_taken_literally(tree):
  root = tree('subject,age\na[1]*,1\n', 'a[1]*.nii', 'a1.nii')
  (record,) = read(root, schema=AGE).records
  assert record.source.image.endswith('a[1]*.nii')


def test_real_brains_are_read_by_their_table(real_data):
  schema = Schema.from_config(
    [{'name': 'Age', 'low': 18, 'high': 95}, {'name': 'Sex', 'categories': ('F', 'M')}]
  )
  cohort = read(real_data / 'ixi', schema=schema)
  assert len(cohort) == 6 and not cohort.notes
  assert cohort.records[0].source.read()[0].array.shape == (120, 120, 90)
