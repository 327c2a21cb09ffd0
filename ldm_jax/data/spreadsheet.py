"""The first sheet of an old Excel file (.xls, as IXI comes) as TSV text."""

from __future__ import annotations

import csv
import io
import pathlib

import xlrd

SUFFIX = '.xls'
MAX_BYTES = 2**26


def as_tsv(path: pathlib.Path) -> str:
  """Cells as text, whole numbers without a point, errors and dates as they are kept.

  Raises:
    ValueError: no such file, too large, or no .xls file.
  """
  try:
    size = path.stat().st_size if path.is_file() else 0
    if not 0 < size <= MAX_BYTES:
      raise ValueError(f'{size} bytes, allowed are 1 to {MAX_BYTES}')
    book = xlrd.open_workbook(path, logfile=io.StringIO(), on_demand=True)
    sheet = book.sheet_by_index(0)
    rows = [sheet.row(number) for number in range(sheet.nrows)]
  except Exception as error:  # xlrd raises many kinds for a damaged file
    raise ValueError(
      f'{path} cannot be read as Excel 97 ({type(error).__name__}: {error}); '
      'required is .xls, .tsv or .csv. Save its first sheet as CSV.'
    ) from error
  text = io.StringIO()
  writer = csv.writer(text, delimiter='\t', lineterminator='\n')
  for row in rows:
    writer.writerow([_text(cell) for cell in row])
  return text.getvalue()


def _text(cell: xlrd.sheet.Cell) -> str:
  if cell.ctype == xlrd.XL_CELL_ERROR:
    return ''
  if cell.ctype == xlrd.XL_CELL_NUMBER and float(cell.value).is_integer():
    return str(int(cell.value))
  return ' '.join(str(cell.value).split())
