"""Laws of the BIDS layout, on a tree of its shape."""

import numpy as np
import pytest

from ldm_jax.data import layouts
from ldm_jax.data.cohorts.attributes import Schema

read = layouts.LAYOUTS['bids'].read
PEOPLE = (
  'participant_id\tage\tsex\tgroup\nsub-01\t60\tM\tcontrol\nsub-02\t89+\tf\tn/a\n'
)


@pytest.fixture
def tree(tmp_path, save_nifti):
  """sub-01 with two sessions and their table, sub-02 with two runs and none."""

  def make(people=PEOPLE, sessions=None):
    for number, name in enumerate(
      (
        'sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz',
        'sub-01/ses-02/anat/sub-01_ses-02_T1w.nii.gz',
        'sub-01/ses-02/anat/sub-01_ses-02_T2w.nii.gz',
        'sub-02/anat/sub-02_run-1_T1w.nii.gz',
        'sub-02/anat/sub-02_run-2_T1w.nii',
        'derivatives/x/sub-02/anat/sub-02_run-1_T1w.nii.gz',
      )
    ):
      save_nifti(tmp_path / name, seed=number)
    if people:
      (tmp_path / 'participants.tsv').write_text(people, 'utf-8-sig')
    (tmp_path / 'sub-01/sub-01_sessions.tsv').write_text(
      sessions or 'session_id\tage\nses-01\t60 years\nses-02\t62,5 years\n'
    )
    return tmp_path

  return make


def test_sessions_are_visits_and_runs_are_scans_of_one_visit(tree):
  cohort = read(tree())
  assert [(r.id, r.patient, r.visit) for r in cohort.records] == [
    ('sub-01_ses-01', 'sub-01', 'ses-01'),
    ('sub-01_ses-02', 'sub-01', 'ses-02'),
    ('sub-02_run-1', 'sub-02', ''),
    ('sub-02_run-2', 'sub-02', ''),
  ]
  assert all(r.source.read()[0].array.size for r in cohort.records)


def test_the_age_at_a_session_stands_before_the_participant_s(tree):
  values = [r.attributes for r in read(tree()).records]
  assert [v['age'] for v in values] == [60, 62.5, 89, 89]
  assert [v['sex'] for v in values] == ['M', 'M', 'F', 'F']


def test_ages_or_dates_tell_the_years_between_sessions(tree):
  def years(**options):
    earlier, later = read(tree(**options)).patients['sub-01']
    assert (earlier.visit, later.visit) == ('ses-01', 'ses-02')
    return later.time - earlier.time

  assert years() == 2.5
  dates = 'session_id\tacq_time\n01\t1910-01-01T10:00:00\n02\t1911-07-02T10:00:00\n'
  assert years(sessions=dates) == pytest.approx(1.5, abs=0.01)
  half = 'session_id\tacq_time\tage\n01\t1910-01-01\t60\n02\tn/a\t61\n'
  assert years(sessions=half) == 1


def test_without_participants_tsv_attributes_are_missing(tree):
  cohort = read(tree(people=''))
  assert cohort.patients['sub-02'][0].attributes == {'age': None, 'sex': None}
  assert cohort.patients['sub-01'][0].attributes['age'] == 60


def test_missing_rows_missing_images_and_other_sexes_are_notes(tree):
  people = 'participant_id\tage\tsex\n01\t60\tO\nsub-09\t50\tM\n\t1\tM\n'
  root = tree(people)
  (root / 'sub-03').mkdir()
  notes = '\n'.join(read(root).notes)
  for note in (
    "'o' is not known",
    'sub-02: without a row',
    'sub-09: in participants.tsv but without images',
    'sub-03: no anat',
    'no id',
  ):
    assert note in notes, note


def test_other_suffixes_labels_and_attributes_are_options(tree, save_nifti):
  root = tree()
  (record,) = read(root, suffix='T2w').records
  assert record.id == 'sub-01_ses-02'
  own = np.ones((6, 5, 4), np.uint8)
  place = root / 'derivatives/fs/sub-02/anat'
  save_nifti(place / 'sub-02_run-1_desc-aseg_dseg.nii.gz', own)
  schema = Schema.from_config([{'name': 'group', 'categories': ('control', 'case')}])
  records = read(root, label='dseg', schema=schema).patients['sub-02']
  assert records[0].source.read()[1].array.all() and records[1].source.label is None
  assert records[0].attributes == {'group': None}
  save_nifti(root / 'derivatives/other/sub-02/anat/sub-02_run-1_dseg.nii.gz', own)
  (fault,) = read(root, label='dseg').patients['sub-02']
  with pytest.raises(ValueError, match=r'options\.pipeline'):
    fault.source.read()
  assert read(root, label='dseg', pipeline='other').patients['sub-02'][0].source.label


@pytest.mark.parametrize(
  ('people', 'sessions', 'message'),
  [
    (PEOPLE, 'session_id\tage\nses-01\told\n', r"line 2, column 'age'.*old"),
    (PEOPLE, 'session\tage\nses-01\t60\n', r"no column 'session_id'"),
    (PEOPLE, 'session_id\tage\nses-01\t6\n01\t7\n', r"one row for session '01'"),
    (PEOPLE + 'sub-01\t61\tM\tcontrol\n', None, r'sub-01 has 2 rows'),
  ],
)
def test_a_faulty_subject_stays_in_the_cohort_with_its_reason(
  tree, people, sessions, message
):
  cohort = read(tree(people, sessions))
  (record,) = cohort.patients['sub-01']
  with pytest.raises(ValueError, match=message):
    record.source.read()
  assert len(cohort.patients['sub-02']) == 2


def test_an_attribute_that_no_table_has_is_an_error(tree, tmp_path):
  schema = Schema.from_config([{'name': 'iq', 'low': 0, 'high': 200}])
  with pytest.raises(ValueError, match=r"no table with the columns \['iq'\]"):
    read(tree(), schema=schema)
  with pytest.raises(ValueError, match='no image'):
    read(tree(), suffix='FLAIR')
