"""Laws of the OASIS-3 layout, on a tree of its shape."""

import pytest

from ldm_jax.data import layouts

read = layouts.LAYOUTS['oasis'].read
PEOPLE = (
  'OASISID,Subject_accession,AgeatEntry,GENDER,EDUC,APOE\n'
  'OAS30001,x,65.1945,2,12,23\nOAS30002,y,67.2,1,16.0,34\nOAS30009,z,50,1,,\n'
)
CDR = (
  'OASISID,days_to_visit,age at visit,CDRSUM,CDRTOT\n'
  'OAS30001,0,65.19,0,0\nOAS30001,00339,66.12,0.5,0.5\nOAS30001,5000,79,9,2\n'
)


@pytest.fixture
def tree(tmp_path, save_nifti):
  def make(people=PEOPLE, cdr=CDR):
    for number, name in enumerate(
      (
        'OAS30001_MR_d0129/anat2/NIFTI/sub-OAS30001_ses-d0129_run-01_T1w.nii.gz',
        'OAS30001_MR_d0129/anat3/NIFTI/sub-OAS30001_ses-d0129_run-02_T1w.nii.gz',
        'OAS30001_MR_d0129/anat1/NIFTI/sub-OAS30001_ses-d0129_T2w.nii.gz',
        'OAS30001_MR_d3132/anat2/sub-OAS30001_ses-d3132_T1w.nii.gz',
        'OAS30001_PIB_d0423/pet1/sub-OAS30001_ses-d0423_T1w.nii.gz',
        'more/OAS30002_MR_d0371/anat1/sub-OAS30002_ses-d0371_T1w.nii.gz',
      )
    ):
      save_nifti(tmp_path / name, seed=number)
    (tmp_path / 'OAS30003_MR_d0001').mkdir(exist_ok=True)
    (tmp_path / 'OASIS3_demographics.csv').write_text(people, 'utf-8-sig')
    if cdr:
      (tmp_path / 'OASIS3_UDSb4_cdr.csv').write_text(cdr)
    return tmp_path

  return make


def test_the_folder_s_name_gives_subject_visit_and_day(tree):
  cohort = read(tree())
  assert [(r.id, r.patient, r.visit) for r in cohort.records] == [
    ('OAS30001_MR_d0129_run-01', 'OAS30001', 'd0129'),
    ('OAS30001_MR_d0129_run-02', 'OAS30001', 'd0129'),
    ('OAS30001_MR_d3132', 'OAS30001', 'd3132'),
    ('OAS30002_MR_d0371', 'OAS30002', 'd0371'),
  ]
  assert any('OAS30003_MR_d0001: no *_T1w' in note for note in cohort.notes)


def test_a_scan_is_older_than_the_entry_by_its_days(tree):
  cohort = read(tree())
  ages = [r.attributes['age'] for r in cohort.records]
  assert ages[0] == pytest.approx(65.1945 + 129 / 365.25)
  assert ages[2] == pytest.approx(65.1945 + 3132 / 365.25)
  first, last = cohort.records[0].attributes, cohort.records[3].attributes
  assert (first['sex'], first['apoe4'], first['education']) == ('F', 0, 12)
  assert (last['sex'], last['apoe4'], last['education']) == ('M', 1, 16)


def test_a_rating_is_that_of_the_nearest_visit_within_a_year(tree):
  root = tree()
  assert [r.attributes['cdr'] for r in read(root).records] == [0, 0, None, None]
  rated = [r.attributes['cdr'] for r in read(root, max_days=2000).records]
  assert rated == [0, 0, 2, None]
  (root / 'OASIS3_UDSb4_cdr.csv').unlink()
  cohort = read(root)
  assert cohort.records[0].attributes['cdr'] is None
  assert any('cdr is missing everywhere' in note for note in cohort.notes)


def test_two_visits_make_a_pair_with_both_runs_of_the_first(tree):
  scans = read(tree()).patients['OAS30001']
  first, last = min(r.time for r in scans), max(r.time for r in scans)
  assert [r.visit for r in scans if r.time == last] == ['d3132']
  assert sum(r.time == first for r in scans) == 2
  assert last - first == pytest.approx((3132 - 129) / 365.25)


@pytest.mark.parametrize(
  ('people', 'cdr', 'message'),
  [
    (PEOPLE.replace('65.1945', 'sixty'), CDR, r"'AgeatEntry'.*sixty"),
    (PEOPLE + 'OAS30001,x,66,2,12,23\n', CDR, 'OAS30001 has 2 rows'),
    (PEOPLE, CDR.replace(',0,65.19', ',zero,65.19'), r"'days_to_visit'.*zero"),
  ],
)
def test_a_faulty_subject_stays_in_the_cohort_with_its_reason(
  tree, people, cdr, message
):
  cohort = read(tree(people, cdr))
  assert len(cohort.patients['OAS30001']) == 2  # one for each visit
  for record in cohort.patients['OAS30001']:
    with pytest.raises(ValueError, match=message):
      record.source.read()
  assert len(cohort.patients['OAS30002']) == 1


def test_a_subject_without_a_row_lacks_attributes_with_a_note(tree):
  cohort = read(tree(PEOPLE.replace('OAS30002', 'OAS30008')))
  assert cohort.patients['OAS30002'][0].attributes['age'] is None
  assert any('OAS30002: without a row' in note for note in cohort.notes)


def test_a_folder_without_tables_or_scans_is_an_error(tmp_path, tree):
  with pytest.raises(ValueError, match='no folder such as OAS30001_CT_d0129'):
    read(tree(), modality='CT')
  (tmp_path / 'OASIS3_demographics.csv').unlink()
  with pytest.raises(ValueError, match='OASIS3_demographics'):
    read(tmp_path)
