"""Text files of unknown origin -> str, in bounded memory.

The first sheet of an old Excel file (.xls, as IXI comes) as TSV text.
"""

from __future__ import annotations

import codecs
import csv
import io
import pathlib

import xlrd

from ldm_jax.data.readers import streams

MAX_BYTES = 2**26  # as text and rows of dicts, about ten times as much in memory
SHEET_SUFFIX = '.xls'
MAX_SHEET_BYTES = 2**26


def read(path: pathlib.Path) -> str:
  """The text of a table's file: UTF-8, or UTF-16 with a mark.

  Raises:
    ValueError: no such file, too large, other bytes than text, or a NUL byte.
  """
  required = 'a UTF-8 TSV or CSV file'
  advice = 'Set options.table of the data section.'
  size = streams.require_file(path, required, advice).st_size
  if size > MAX_BYTES:
    raise ValueError(
      f'{path} has {size} bytes; allowed are {MAX_BYTES}. Cut it down to the columns '
      'that data.schema names.'
    )
  try:
    content = path.read_bytes()
  except OSError as error:
    raise streams.unreadable(path, error, required, advice) from error
  wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
  try:
    text = content.decode('utf-16' if wide else 'utf-8-sig')
  except UnicodeDecodeError as error:
    kind = streams.kind_of(content[:132])
    raise ValueError(
      f'{path} is not UTF-8 text ({error.reason} at byte {error.start}'
      + (f'; it looks like {kind}' if kind else '')
      + f'); required is {required}. Save it again as UTF-8.'
    ) from error
  if '\0' in text:
    line = text.count('\n', 0, text.index('\0')) + 1
    raise ValueError(
      f'{path} holds a NUL byte in line {line}; '
      f'required is {required}. It is damaged or UTF-16 without a mark: save it again '
      'as UTF-8.'
    )
  return text


def sheet_as_tsv(path: pathlib.Path) -> str:
  """Cells as text, whole numbers without a point, errors and dates as they are kept.

  Raises:
    ValueError: no such file, too large, or no .xls file.
  """
  try:
    size = path.stat().st_size if path.is_file() else 0
    if not 0 < size <= MAX_SHEET_BYTES:
      raise ValueError(f'{size} bytes, allowed are 1 to {MAX_SHEET_BYTES}')
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
