"""A table's file -> its columns and rows of text, in bounded memory.

UTF-8 with or without byte-order mark, UTF-16 with one (Unicode text of Excel), or the
first sheet of an old Excel file (.xls, as IXI is published). The separator (tab, comma
or semicolon) is that of the header line.
"""

from __future__ import annotations

import codecs
import collections
import csv
import io
import pathlib
import re
from typing import NamedTuple

import xlrd

from ldm_jax.data.readers import streams

MAX_BYTES = 2**26  # as text and rows of dicts, about ten times as much in memory
SHEET_SUFFIX = '.xls'
# Of spreadsheets that are not read.
WORKBOOKS = ('.xlsx', '.xlsm', '.xlsb', '.ods', '.numbers')
# Where the header has equally many of two, the first: names may contain commas.
SEPARATORS = '\t;,'


class Rows(NamedTuple):
  """What a table's file holds.

  Attributes:
    columns: names in the header, stripped.
    rows: one dict column -> text per line, '' where a line is short.
    lines: the line of every row in the file, from 1.
    separator: of the cells.
  """

  columns: tuple[str, ...]
  rows: tuple[dict[str, str], ...]
  lines: tuple[int, ...]
  separator: str


def read(path: pathlib.Path) -> Rows:
  """Reads a TSV, CSV or XLS file.

  Raises:
    ValueError: no such file or too large, not UTF-8, no header, no rows, repeated
      column names, an open quote, or a line with more cells than the header; a
      spreadsheet of another kind.
  """
  if path.suffix.lower() in WORKBOOKS:
    raise ValueError(
      f'{path} is a spreadsheet ({path.suffix}); expected .tsv, .csv or .xls. Save its '
      'sheet as CSV, in UTF-8 and with the ids as text, so that 007 stays 007.'
    )
  is_sheet = path.suffix.lower() == SHEET_SUFFIX
  return parse(path, _sheet_as_tsv(path) if is_sheet else _text_of(path))


def parse(path: pathlib.Path, text: str) -> Rows:
  """Splits the text of a table into rows.

  Args:
    path: of the file, for messages.
    text: its content.

  Raises:
    ValueError: no header, no rows, repeated column names, an open quote, or a line with
      more cells than the header.
  """
  header_line = next((line for line in text.splitlines() if line.strip()), '')
  unquoted = re.sub(r'"[^"]*"', '', header_line)
  separator = max(SEPARATORS, key=unquoted.count)
  # `splitlines` would end a row at a form feed inside a cell. Strict, because a quote
  # that is never closed would swallow all rows behind it.
  reader = csv.reader(io.StringIO(text, newline=''), delimiter=separator, strict=True)
  columns: tuple[str, ...] = ()
  rows, lines = [], []
  try:
    for cells in reader:
      cells = [cell.strip() for cell in cells]
      if not any(cells):
        continue
      if not columns:
        columns = _columns(path, cells)
        continue
      if len(cells) > len(columns) and any(cells[len(columns) :]):
        raise ValueError(
          f'{path}, line {reader.line_num} has {len(cells)} cells but the header has '
          f'{len(columns)}; expected one cell per column. Quote cells that hold the '
          f'separator {separator!r}.'
        )
      cells += [''] * (len(columns) - len(cells))
      rows.append(dict(zip(columns, cells, strict=False)))
      lines.append(reader.line_num)
  except csv.Error as error:
    raise ValueError(
      f'{path}, line {reader.line_num} is not a table row ({error}); repair the line.'
    ) from error
  if not rows:
    raise ValueError(
      f'{path} holds no rows; expected a header line and one line per patient. Fill it.'
    )
  return Rows(columns, tuple(rows), tuple(lines), separator)


def _text_of(path: pathlib.Path) -> str:
  """The text of a file in UTF-8, or in UTF-16 with a byte-order mark."""
  required = 'a UTF-8 TSV or CSV file'
  advice = 'Set options.table of the data section.'
  size = streams.require_file(path, required, advice).st_size
  if size > MAX_BYTES:
    raise ValueError(
      f'{path} has {size} bytes; expected at most {MAX_BYTES}. Keep only the columns '
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
      + f'); expected {required}. Save it again as UTF-8.'
    ) from error
  if '\0' in text:
    line = text.count('\n', 0, text.index('\0')) + 1
    raise ValueError(
      f'{path} holds a NUL byte in line {line}; '
      f'expected {required}. It is damaged or UTF-16 without a mark: save it again '
      'as UTF-8.'
    )
  return text


def _sheet_as_tsv(path: pathlib.Path) -> str:
  """Whole numbers are written without a point, errors as empty, dates as numbers."""
  try:
    size = path.stat().st_size if path.is_file() else 0
    if not 0 < size <= MAX_BYTES:
      raise ValueError(f'{size} bytes, expected 1 to {MAX_BYTES}')
    book = xlrd.open_workbook(path, logfile=io.StringIO(), on_demand=True)
    sheet = book.sheet_by_index(0)
    rows = [sheet.row(number) for number in range(sheet.nrows)]
  except Exception as error:  # xlrd raises many kinds for a damaged file
    raise ValueError(
      f'{path} cannot be read as Excel 97 ({type(error).__name__}: {error}); '
      'expected .xls, .tsv or .csv. Save its first sheet as CSV.'
    ) from error
  text = io.StringIO()
  writer = csv.writer(text, delimiter='\t', lineterminator='\n')
  for row in rows:
    writer.writerow([_cell(cell) for cell in row])
  return text.getvalue()


def _cell(cell: xlrd.sheet.Cell) -> str:
  if cell.ctype == xlrd.XL_CELL_ERROR:
    return ''
  if cell.ctype == xlrd.XL_CELL_NUMBER and float(cell.value).is_integer():
    return str(int(cell.value))
  return ' '.join(str(cell.value).split())


def _columns(path: pathlib.Path, cells: list[str]) -> tuple[str, ...]:
  while cells and not cells[-1]:
    cells = cells[:-1]
  counts = collections.Counter(cells)
  repeated = sorted(name for name, count in counts.items() if name and count > 1)
  if repeated:
    raise ValueError(
      f'{path} has the column {repeated[0][:80]!r} more than once; expected '
      'distinct names. Rename one of them.'
    )
  return tuple(cells)
