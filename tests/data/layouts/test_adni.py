"""Laws of the ADNI layout: scans find their visit, ages grow with it."""

import numpy as np
import pytest

from ldm_jax.data.layouts.adni import read

HEAD = 'RID,PTID,VISCODE,EXAMDATE,DX,PTGENDER,AGE,MMSE,CDRSB,IMAGEUID\n'
ROWS = (
  '2,011_S_0002,bl,2005-09-08,CN,Male,74.3,28,0,\n'
  '2,011_S_0002,m06,2006-03-06,CN,Male,74.3,28,0,\n'
  '2,011_S_0002,m24,,MCI,Male,74.3,27,0.5,777\n'
  '3,011_S_0003,bl,2005-09-12,Dementia,Female,81.3,20,4.5,\n'
)


@pytest.fixture
def tree(tmp_path, save_nifti, save_series):
  """ADNIMERGE and scans as downloaded, one of them as DICOM."""
  (tmp_path / 'ADNIMERGE.csv').write_text(HEAD + ROWS)
  base = tmp_path / 'ADNI'
  for patient, folder, date, image in (
    ('011_S_0002', 'MPR__GradWarp', '2005-09-01_16_18_44.0', '35475'),
    ('011_S_0002', 'MPR__GradWarp', '2006-03-20_10_00_00.0', '35476'),
    ('011_S_0002', 'MPR__GradWarp', '2011-03-20_10_00_00.0', '777'),
    ('011_S_0002', 'MPR__GradWarp', '2015-01-01_10_00_00.0', '999'),
  ):
    name = f'ADNI_{patient}_MR_{folder}_Br_2007_S1_I{image}.nii'
    save_nifti(base / patient / folder / date / 'S1' / name)
  save_series(
    base / '011_S_0003' / 'MP-RAGE' / '2005-09-12_08_20_30.0' / 'I13722',
    np.arange(60, dtype=np.int16).reshape(5, 4, 3),
    np.diag([1.0, 1.0, 1.2, 1.0]),
  )
  return tmp_path


def test_scans_find_their_visit_by_image_then_by_date(tree):
  cohort = read(str(tree))
  assert [(r.id, r.visit) for r in cohort.records] == [
    ('011_S_0002_bl_I35475', 'bl'),
    ('011_S_0002_m06_I35476', 'm06'),
    ('011_S_0002_m24_I777', 'm24'),
    ('011_S_0002_I999', 'I999'),
    ('011_S_0003_bl_I13722', 'bl'),
  ]
  assert cohort.notes == ('011_S_0002, I999: fits none of its 3 visits',)
  assert len(cohort) == 2
  for record in cohort.records:
    assert record.source.read()[0].array.ndim == 3


def test_age_is_that_of_the_visit(tree):
  values = [r.attributes for r in read(str(tree)).records]
  ages = [v['AGE'] for v in values]
  assert ages[0] == 74.3 and ages[3] is None and ages[4] == 81.3
  assert ages[1] == pytest.approx(74.3 + 179 / 365.25)  # by the dates
  assert ages[2] == pytest.approx(74.3 + 2)  # no date: by the code m24
  assert [v['SEX'] for v in values] == ['M', 'M', 'M', None, 'F']
  assert [v['DX'] for v in values] == ['CN', 'CN', 'MCI', None, 'Dementia']
  assert [v['CDRSB'] for v in values] == [0, 0, 0.5, None, 4.5]


def test_a_farther_visit_may_be_allowed(tree):
  cohort = read(str(tree), max_days=4000)
  assert not cohort.notes and cohort.records[-2].visit == 'm06'


def test_the_table_may_lie_elsewhere(tree, tmp_path_factory):
  other = tmp_path_factory.mktemp('tables') / 'merge.csv'
  (tree / 'ADNIMERGE.csv').rename(other)
  assert len(read(str(tree), table=str(other)).records) == 5


def test_a_scan_whose_row_is_at_fault_stays_out_with_every_reason(tree):
  (tree / 'ADNIMERGE.csv').write_text(HEAD + ROWS.replace('MCI,Male', 'maybe,?x'))
  records = read(str(tree)).records
  assert [hasattr(r.source, 'reason') for r in records] == [0, 0, 1, 0, 0]
  with pytest.raises(ValueError, match=r"column 'PTGENDER'.*line 4, column 'DX'.*'may"):
    records[2].source.read()


def test_a_root_without_scans_is_an_error(tmp_path):
  (tmp_path / 'ADNIMERGE.csv').write_text(HEAD + ROWS)
  with pytest.raises(ValueError, match='ImageID'):
    read(str(tmp_path))
