"""Text of a table -> its columns and rows; the separator comes from the header line."""

from __future__ import annotations

import collections
import csv
import io
import pathlib
import re

# Where the header has as many of two, the first: a comma stands in names, too.
SEPARATORS = '\t;,'


def parse(
  path: pathlib.Path, text: str
) -> tuple[tuple[str, ...], tuple[dict[str, str], ...], tuple[int, ...], str]:
  """Columns, rows (column -> text, '' where a line is short), lines, separator.

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
  columns, rows, lines = None, [], []
  try:
    for cells in reader:
      cells = [cell.strip() for cell in cells]
      if not any(cells):
        continue
      if columns is None:
        columns = _columns(path, cells)
        continue
      if len(cells) > len(columns) and any(cells[len(columns) :]):
        raise ValueError(
          f'{path}, line {reader.line_num} has {len(cells)} cells but the header has '
          f'{len(columns)}; required is one cell per column. Quote cells that hold the '
          f'separator {separator!r}.'
        )
      cells += [''] * (len(columns) - len(cells))
      rows.append(dict(zip(columns, cells, strict=False)))
      lines.append(reader.line_num)
  except csv.Error as error:
    raise ValueError(
      f'{path}, line {reader.line_num} is no table row ({error}); repair the line.'
    ) from error
  if not rows:
    raise ValueError(
      f'{path} holds no rows; required are a header line and one line per patient.'
    )
  return columns, tuple(rows), tuple(lines), separator


def _columns(path: pathlib.Path, cells: list[str]) -> tuple[str, ...]:
  while cells and not cells[-1]:
    cells = cells[:-1]
  counts = collections.Counter(cells)
  repeated = sorted(name for name, count in counts.items() if name and count > 1)
  if repeated:
    raise ValueError(
      f'{path} has the column {repeated[0][:80]!r} more than once; required are '
      'distinct names. Rename one of them.'
    )
  return tuple(cells)
