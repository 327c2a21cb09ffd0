"""Laws of a table's file: separator, encoding and Excel make no difference."""

import pytest
import xlwt

from ldm_jax.data.tables.rows import read


@pytest.fixture
def save_sheet(tmp_path):
  def save(rows, name='t.xls'):
    book = xlwt.Workbook()
    sheet = book.add_sheet('Table')
    for row, cells in enumerate(rows):
      for column, value in enumerate(cells):
        if value is not None:
          sheet.write(row, column, value)
    book.save(str(tmp_path / name))
    return tmp_path / name

  return save


def test_a_sheet_is_a_table_with_whole_numbers_without_a_point(save_sheet):
  path = save_sheet([['IXI_ID', 'AGE', 'a b'], [12, 35.8, 'x\ty'], [13, None, None]])
  found = read(path)
  assert found.columns == ('IXI_ID', 'AGE', 'a b')
  assert found.rows[0] == {'IXI_ID': '12', 'AGE': '35.8', 'a b': 'x y'}
  assert found.rows[1]['AGE'] == ''


def test_a_damaged_sheet_is_one_clear_error(save_sheet, tmp_path):
  content = save_sheet([['a', 'b'], [1, 2]]).read_bytes()
  for damaged in (b'', b'no sheet', content[:700], content[:512] + bytes(5000)):
    (tmp_path / 'x.xls').write_bytes(damaged)
    with pytest.raises(ValueError, match=r'x.xls.*Save its first sheet as CSV'):
      read(tmp_path / 'x.xls')
  with pytest.raises(ValueError, match='Save its first sheet'):
    read(tmp_path / 'none.xls')


@pytest.mark.parametrize('separator', ['\t', ',', ';'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
@pytest.mark.parametrize('ending', ['\n', '\r\n'])
def test_separator_mark_and_line_ending_do_not_matter(
  tmp_path, separator, encoding, ending
):
  cells = [['id', 'Größe'], ['001', '1.5'], ['', ''], ['002', 'n/a']]
  path = tmp_path / 'p.csv'
  text = ''.join(separator.join(row) + ending for row in cells)
  path.write_bytes(text.encode(encoding))
  found = read(path)
  assert found.columns == ('id', 'Größe')
  assert found.rows == ({'id': '001', 'Größe': '1.5'}, {'id': '002', 'Größe': 'n/a'})
  assert found.lines == (2, 4)
  assert found.separator == separator


def test_quoted_cells_may_hold_separators_and_short_rows_are_missing(tmp_path):
  (tmp_path / 'p.csv').write_text('id,note,age\n1,"a, b",3\n2\n')
  found = read(tmp_path / 'p.csv')
  assert found.rows[0]['note'] == 'a, b' and found.rows[1]['age'] == ''


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    (b'', 'no rows'),
    (b'id,age\n', 'no rows'),
    (b'id,id\n1,2\n', 'more than once'),
    (b'id,age\n1,2,3\n', 'line 2 has 3 cells'),
    (b'id,name\n1,M\xfcller\n', 'not UTF-8'),
    (b'id,name\n1,"open\n', 'not a table row'),
    (b'id\n1\0\n', 'NUL byte in line 2'),
    (b'PK\x03\x04\xff', 'looks like a zip archive'),
  ],
)
def test_a_broken_table_is_an_error_that_says_where(tmp_path, content, words):
  (tmp_path / 'p.csv').write_bytes(content)
  with pytest.raises(ValueError, match=words):
    read(tmp_path / 'p.csv')
