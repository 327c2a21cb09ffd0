"""Laws of rows and patients: which row is whose, who lacks what."""

import pytest

from ldm_jax.data.layouts.shared import patient_rows
from ldm_jax.data.tables import table as tables


@pytest.fixture
def table(tmp_path):
  def make(*ids):
    lines = '\n'.join(f'{patient},x' for patient in ids)
    (tmp_path / 'people.csv').write_text(f'id,other\n{lines}\n')
    return tables.read(tmp_path / 'people.csv')

  return make


def test_each_patient_has_one_row_whatever_the_spelling(table):
  found = patient_rows.one_each(
    table('1', '02'), 'id', 'the patient', lambda s: s.zfill(2)
  )
  assert found == {'01': 0, '02': 1}


@pytest.mark.parametrize(
  ('ids', 'words'),
  [
    (('1', '01'), "line 3, column 'id': patient '01' appears twice"),
    (('', '1'), 'has no id'),
  ],
)
def test_a_repeated_or_missing_id_is_refused_with_its_place(table, ids, words):
  with pytest.raises(ValueError, match=words):
    patient_rows.one_each(table(*ids), 'id', 'the patient', lambda s: s.zfill(2))


def test_one_row_at_most_and_a_note_where_there_is_none(table):
  people, notes = table('a', 'b'), []
  assert patient_rows.only('a', [0], people, notes) == 0 and not notes
  assert patient_rows.only('c', [], people, notes) is None
  assert notes == ['c: without a row in people.csv']
  with pytest.raises(ValueError, match='a has 2 rows'):
    patient_rows.only('a', [0, 1], people, notes)


def test_every_row_without_a_scan_is_named_and_counted_as_alone(table):
  people, notes = table('a', 'b', 'c'), []
  found = patient_rows.match(people, 'abc', 'bd', notes, 'a folder', {'c': 'sub-c'})
  assert notes == [f'{p}: in people.csv but without a folder' for p in ('a', 'sub-c')]
  assert (found.rows_alone, found.scans_alone) == (('a', 'c'), ('d',))


def test_where_the_table_lists_everybody_rows_without_a_scan_are_only_counted(table):
  people, notes = table('a', 'b', 'c'), []
  found = patient_rows.match(people, 'abc', 'bd', notes)
  assert notes == ['2 patients of people.csv have no scan, such as a']
  assert (found.rows_alone, found.scans_alone) == ((), ('d',))
