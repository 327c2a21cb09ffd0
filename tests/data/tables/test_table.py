"""Laws of tables: text stays text, and every error names its cell."""

import pytest

from ldm_jax.data.cohorts.attributes import Attribute
from ldm_jax.data.tables import table


def test_a_bad_cell_is_named_by_file_line_column_and_value(tmp_path):
  (tmp_path / 'p.tsv').write_text('id\tage\n1\t50\n2\tsixty\n')
  with pytest.raises(ValueError, match=r"p\.tsv, line 3, column 'age'.*sixty"):
    table.read(tmp_path / 'p.tsv').attribute(1, Attribute('age', low=0, high=99))


def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path):
  (tmp_path / 'p.tsv').write_text('id\tAlter\n1\t50\n')
  with pytest.raises(ValueError, match=r"'age'.*id, Alter.*data\.schema"):
    table.read(tmp_path / 'p.tsv').attribute(0, Attribute('age', low=0, high=99))


def test_a_column_in_other_letters_is_proposed(tmp_path):
  (tmp_path / 'p.tsv').write_text('id\tage\n1\t50\n')
  with pytest.raises(ValueError, match="Did you mean 'age'"):
    table.read(tmp_path / 'p.tsv').attribute(0, Attribute('Age', low=0, high=99))


def test_a_spreadsheet_that_is_not_read_is_named_with_what_to_save(tmp_path):
  (tmp_path / 'mine.xlsx').write_bytes(b'PK\3\4')
  with pytest.raises(ValueError, match=r'mine\.xlsx.*save its sheet as CSV'):
    table.find(tmp_path)
  with pytest.raises(ValueError, match=r'mine\.xlsx is a spreadsheet.*as CSV'):
    table.read(table.find(tmp_path, 'mine.xlsx'))
  (tmp_path / 'old.xls').write_bytes(b'')
  assert table.find(tmp_path).name == 'old.xls', 'it is read'
  (tmp_path / 'mine.csv').write_text('id\n1\n')
  assert table.find(tmp_path).name == 'mine.csv'


def test_the_usual_table_is_found_else_the_only_one(tmp_path):
  with pytest.raises(ValueError, match='none'):
    table.find(tmp_path)
  (tmp_path / 'mine.csv').write_text('id\n1\n')
  assert table.find(tmp_path).name == 'mine.csv'
  (tmp_path / 'other.csv').write_text('id\n1\n')
  with pytest.raises(ValueError, match=r'mine\.csv, other\.csv.*options\.table'):
    table.find(tmp_path)
  (tmp_path / 'participants.tsv').write_text('id\n1\n')
  assert table.find(tmp_path).name == 'participants.tsv'
  assert table.find(tmp_path, 'other.csv').name == 'other.csv'
  with pytest.raises(ValueError, match='does not exist'):
    table.find(tmp_path, 'none.csv')


def test_a_missing_or_empty_folder_is_an_error(tmp_path):
  for root, words in (('', 'does not exist'), (tmp_path / 'x', 'does not exist')):
    with pytest.raises(ValueError, match=words):
      table.require_folder(root)
  with pytest.raises(ValueError, match='empty'):
    table.require_folder(tmp_path)


def test_semicolons_and_decimal_commas_are_read_as_what_they_mean(tmp_path):
  (tmp_path / 'p.csv').write_text(
    'id;Volume, left;age\r\n1;1324,5;62,25\r\n2;1,324;7,125\r\n3;1550;\r\n'
  )
  found = table.read(tmp_path / 'p.csv')
  assert found.columns == ('id', 'Volume, left', 'age')
  volume = Attribute('v', low=0, high=9, column='Volume, left')
  age = Attribute('age', low=0, high=99)
  assert [found.attribute(i, volume) for i in range(3)] == [1324.5, 1.324, 1550]
  assert [found.attribute(i, age) for i in range(3)] == [62.25, 7.125, None]


def test_a_number_that_may_be_a_thousand_or_a_fraction_is_refused(tmp_path):
  (tmp_path / 'p.tsv').write_text('id\tvolume\n1\t1,324\n')
  with pytest.raises(ValueError, match=r"line 2.*'1,324' may be a thousand"):
    table.read(tmp_path / 'p.tsv').attribute(0, Attribute('volume', low=0, high=9))
