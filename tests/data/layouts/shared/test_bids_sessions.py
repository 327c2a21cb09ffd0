"""Laws of the tables of BIDS: which row gives a value, which dates make a time axis."""

import pytest

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import FileSource
from ldm_jax.data.layouts.shared import bids_sessions
from ldm_jax.data.tables import table as tables

SCHEMA = Schema((Attribute('age', low=0, high=100), bids_sessions.SEX))


@pytest.fixture
def visits(tmp_path):
  """sub-1 with two sessions; `sessions` are the lines of its own table."""

  def make(*sessions, own=(0,)):
    for name in ('ses-a', 'ses-b'):
      (tmp_path / 'sub-1' / name).mkdir(parents=True, exist_ok=True)
    people = tmp_path / 'participants.tsv'
    people.write_text('participant_id\tage\tsex\nsub-1\t60\tmale\n')
    lines = ('session_id\tage\tacq_time', *sessions)
    (tmp_path / 'sub-1/sub-1_sessions.tsv').write_text('\n'.join(lines) + '\n')
    notes = []
    subject = tmp_path / 'sub-1'
    return bids_sessions.Visits(subject, tables.read(people), own, notes), notes

  return make


def record(found, session):
  image = f'sub-1_ses-{session}_T1w.nii.gz'
  return found.record(image, FileSource(image), SCHEMA)


def test_the_row_of_a_session_goes_before_the_participants(visits):
  found, notes = visits('ses-a\t62\tn/a')
  assert record(found, 'a').attributes == {'age': 62, 'sex': 'M'}
  assert record(found, 'b').attributes == {'age': 60, 'sex': 'M'}
  assert record(found, 'b').visit == 'ses-b' and not notes


def test_dates_count_only_where_every_session_has_one(visits):
  dated, _ = visits('ses-a\t\t2001-01-01T10:00:00', 'b\t\t2003-01-01T10:00:00')
  years = record(dated, 'b').years - record(dated, 'a').years
  assert years == pytest.approx(2, abs=0.01)
  partly, _ = visits('ses-a\t\t2001-01-01', 'ses-b\t\tn/a')
  assert record(partly, 'a').years is None


def test_a_subject_without_a_row_is_a_note_and_one_with_two_an_error(visits):
  found, notes = visits('ses-a\t62\tn/a', own=())
  assert record(found, 'b').attributes == {'age': None, 'sex': None}
  assert notes == ['sub-1: without a row in participants.tsv']
  with pytest.raises(ValueError, match='sub-1 has 2 rows'):
    visits('ses-a\t62\tn/a', own=(0, 1))
  with pytest.raises(ValueError, match="more than one row for session 'a'"):
    visits('ses-a\t62\tn/a', 'a\t63\tn/a')
