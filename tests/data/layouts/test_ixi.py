"""Laws of the IXI layout, on trees of its shapes and on the real one."""

import pytest
import xlwt

from ldm_jax.data import layouts
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.preprocessing import preprocess

read = layouts.LAYOUTS['ixi'].read
SEX = 'SEX_ID (1=m, 2=f)'
ROWS = ((2, 2, 35.8), (12, 1, 38.78), (13, 1, None), (13, 1, 46.71), (14, 2, 34.2))


@pytest.fixture
def tree(tmp_path, save_nifti):
  """Four patients below IXI-T1/, one of a T2; the table as it is published."""
  for number, name in enumerate(
    ('IXI002-Guys-0828', 'IXI012-HH-1211', 'IXI013-HH-1212', 'IXI099-IOP-0001')
  ):
    save_nifti(tmp_path / f'IXI-T1/{name}-T1.nii.gz', seed=number)
  save_nifti(tmp_path / 'IXI-T2/IXI012-HH-1211-T2.nii.gz')
  book = xlwt.Workbook()
  sheet = book.add_sheet('Table')
  for line, row in enumerate([('IXI_ID', SEX, 'HEIGHT', 'AGE'), *ROWS]):
    row = row if line == 0 else (row[0], row[1], 0, row[2])
    for column, value in enumerate(row):
      if value is not None:
        sheet.write(line, column, value)
  book.save(str(tmp_path / 'IXI.xls'))
  return tmp_path


def test_an_unpadded_number_finds_its_scans_and_coded_sexes_are_words(tree):
  cohort = read(tree)
  values = {r.patient: r.attributes for r in cohort.records}
  assert values['IXI002'] == {'age': 35.8, 'sex': 'F', 'site': 'Guys'}
  assert values['IXI012'] == {'age': 38.78, 'sex': 'M', 'site': 'HH'}
  assert [r.id for r in cohort.records][:2] == ['IXI002-Guys-0828', 'IXI012-HH-1211']


def test_repeated_rows_agree_where_they_say_something(tree):
  assert read(tree).patients['IXI013'][0].attributes['age'] == 46.71
  book = 'IXI_ID,AGE,Sex\n2,35,F\n2,36,F\n'
  (tree / 'IXI.csv').write_text(book, 'utf-8-sig')
  cohort = read(tree, table='IXI.csv')
  assert cohort.patients['IXI002'][0].attributes == {
    'age': None,
    'sex': 'F',
    'site': 'Guys',
  }
  assert any('rows disagree about age' in note for note in cohort.notes)


def test_a_scan_without_a_row_and_a_row_without_a_scan_are_notes(tree):
  cohort = read(tree)
  assert cohort.patients['IXI099'][0].attributes['age'] is None
  assert any('IXI099: without a row' in note for note in cohort.notes)
  assert any('have no scan, such as IXI014' in note for note in cohort.notes)


def test_another_modality_is_an_option_and_one_that_is_not_there_an_error(tree):
  assert [r.patient for r in read(tree, modality='T2').records] == ['IXI012']
  with pytest.raises(ValueError, match=r'IXI012-HH-1211-PD.nii.gz \(5 scans of other'):
    read(tree, modality='PD')


def test_a_faulty_row_stays_in_the_cohort_with_its_reason(tree):
  (tree / 'IXI.csv').write_text(f'IXI_ID,"{SEX}",AGE\n2,2,old\n12,1,38\n')
  cohort = read(tree, table='IXI.csv')
  with pytest.raises(ValueError, match=r"line 2, column 'AGE'.*old"):
    cohort.patients['IXI002'][0].source.read()
  assert cohort.patients['IXI012'][0].attributes['sex'] == 'M'


def test_real_brains_are_read_upright_with_age_and_sex(real_data):
  cohort = read(real_data / 'ixi')
  assert len(cohort) == 6 and not cohort.notes
  for record in cohort.records:
    assert cohort.schema.out_of_range(record.attributes) == []
    assert set(record.attributes) == {'age', 'sex', 'site'}
    assert None not in record.attributes.values()
  scan, _ = cohort.records[0].source.read()
  assert scan.array.shape == (120, 120, 90)  # superior, anterior, right
  done = preprocess.apply(preprocess.Spec((44, 56, 44), (4, 4, 4), centre='mass'), scan)
  assert done.array[22, 28, 22] > 0.2  # brain in the middle


def test_other_columns_are_attributes_when_the_schema_names_them(real_data):
  schema = Schema.from_config([{'name': 'Age', 'low': 18, 'high': 95}])
  assert read(real_data / 'ixi', schema=schema).records[0].attributes['Age'] > 18
