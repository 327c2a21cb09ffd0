"""Laws of old Excel files: cells come out as a table of text."""

import pytest
import xlwt

from ldm_jax.data.tables import table


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
  found = table.read(path)
  assert found.columns == ('IXI_ID', 'AGE', 'a b')
  assert found.rows[0] == {'IXI_ID': '12', 'AGE': '35.8', 'a b': 'x y'}
  assert found.number(1, 'AGE') is None


def test_a_damaged_sheet_is_one_clear_error(save_sheet, tmp_path):
  content = save_sheet([['a', 'b'], [1, 2]]).read_bytes()
  for damaged in (b'', b'no sheet', content[:700], content[:512] + bytes(5000)):
    (tmp_path / 'x.xls').write_bytes(damaged)
    with pytest.raises(ValueError, match=r'x.xls.*Save its first sheet as CSV'):
      table.read(tmp_path / 'x.xls')
  with pytest.raises(ValueError, match='Save its first sheet'):
    table.read(tmp_path / 'none.xls')
