"""Tables of patients: rows of text -> values, with errors that name the cell.

Cells stay text until a value is read, so that an id such as 001 keeps its zeros.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ldm_jax.data.cohorts import cells
from ldm_jax.data.cohorts.attributes import Attribute, Schema, is_missing
from ldm_jax.data.readers import streams
from ldm_jax.data.tables import rows

LONGEST_VALUE = 200  # characters of an attribute
NAMES = ('participants.tsv', 'participants.csv')


@dataclasses.dataclass(frozen=True)
class Table:
  """A table that was read.

  Attributes:
    path: the file.
    columns: names in the header, stripped.
    rows: one dict column -> text per line, '' where a line is short.
    lines: the line of every row in the file, from 1, for messages.
    separator: of its cells.
  """

  path: pathlib.Path
  columns: tuple[str, ...]
  rows: tuple[dict[str, str], ...]
  lines: tuple[int, ...]
  separator: str = '\t'

  def require(self, column: str, purpose: str, key: str) -> str:
    """Returns `column`, or raises ValueError naming it and the columns there are."""
    if column in self.columns:
      return column
    same = [c for c in self.columns if c.casefold() == column.strip().casefold()]
    hint = f' Did you mean {same[0]!r}?' if same else ''
    raise ValueError(
      f'{self.path} has no column {column!r} for {purpose}; its columns are '
      f'{listed(self.columns)}.{hint} Name the right one in {key}, or add it to the '
      'table.'
    )

  def column_of(self, attribute: Attribute) -> str:
    """The column of an attribute. Raises ValueError where the table has none."""
    key = f'data.schema (column of {attribute.name!r})'
    column = attribute.column or attribute.name
    return self.require(column, f'attribute {attribute.name!r}', key)

  def where(self, index: int, column: str) -> str:
    """File, line and column of a cell, for messages."""
    return f'{self.path}, line {self.lines[index]}, column {column!r}'

  def attribute(self, index: int, attribute: Attribute) -> Any:
    """Value of an attribute in row `index`: a number, a category's text, or None.

    Numbers may have a decimal comma (decided per column by `cells.decimal_comma`); an
    age (a column named after it, or the unit 'years') may name its unit; categories and
    sexes are recognised as `cells.category` says.

    Raises:
      ValueError: the column is absent, or its cell is no number or known category.
    """
    column = self.column_of(attribute)
    value = self.rows[index][column]
    if is_missing(value):
      return None
    if len(value) > LONGEST_VALUE:
      raise ValueError(
        f'{self.where(index, column)}: the cell holds {len(value)} characters, '
        f'beginning with {value[:20]!r}; expected one value, a number or one of the '
        'known categories. Correct the table.'
      )
    if attribute.kind == 'continuous':
      is_age = attribute.unit == 'years' or cells.names_age(column)
      read_as = cells.years if is_age else cells.number
      number = read_as(value, self._decimal_commas[column])
      if number is not None:
        return number
    try:
      if attribute.kind == 'continuous':  # '1.234' may still be a number to Python
        raise ValueError(attribute.refusal(value))
      attribute.encode(value)
    except ValueError as error:
      either = any(p.fullmatch(value) for p in (cells.AMBIGUOUS, cells.DOTTED))
      hint = f' {value!r} may be a thousand or a fraction: write it unambiguously.'
      raise ValueError(
        f'{self.where(index, column)}: {error}{hint if either else ""}'
      ) from error
    if attribute.kind == 'categorical':
      own = attribute.decode(attribute.encode(value))
      return own if isinstance(own, str) else value
    return value

  @functools.cached_property
  def _decimal_commas(self) -> dict[str, bool]:
    return {
      column: cells.decimal_comma((row[column] for row in self.rows), self.separator)
      for column in self.columns
    }

  def number(self, index: int, column: str, unit: str = '') -> float | None:
    """Number in a cell; None where the cell is empty or the table has no such column.

    Raises:
      ValueError: the cell holds something else.
    """
    if column not in self.columns:
      return None
    return self.attribute(index, Attribute(column, low=0, high=1, unit=unit))

  def one_of(
    self, index: int, column: str, codes: Mapping[str, Any], notes: list[str]
  ) -> Any:
    """Looks up the text of a cell in `codes`.

    Args:
      index: of the row.
      column: a column that the table lacks counts as empty.
      codes: lower-case text -> value; whole numbers are written without a point.
      notes: receives a message for a text that is not in `codes`.

    Returns:
      The value; None where the cell is empty or not in `codes`.
    """
    text = ' '.join(self.rows[index].get(column, '').lower().split())
    text = re.sub(r'^(-?\d+)\.0*$', r'\1', text)
    if text not in codes and not is_missing(text):
      notes.append(
        f'{self.where(index, column)}: {text!r} is not known and taken as missing; '
        f'known are {", ".join(codes)}'
      )
    return codes.get(text)

  def attributes(self, index: int, schema: Schema) -> dict[str, Any]:
    """All attributes of the schema in row `index`.

    Raises:
      ValueError: naming every cell that is no number or known category.
    """
    return attributes(schema, {}, self, index)


def attributes(
  schema: Schema, known: Mapping[str, Any], table: Table | None, index: int | None
) -> dict[str, Any]:
  """Values of the schema's attributes: from the layout, else from the table's column.

  Args:
    schema: of the attributes.
    known: name -> value, what the layout knows.
    table: with the other attributes, or None.
    index: row of the table; None if the patient has none, and its values are missing.

  Raises:
    ValueError: neither knows an attribute, or a cell is no number or known category;
      it names every such cell of the row.
  """
  found: dict[str, Any] = {}
  faults: list[str] = []
  for attribute in schema:
    if attribute.name in known:
      found[attribute.name] = known[attribute.name]
    elif table is None:
      raise ValueError(
        f'The attribute {attribute.name!r} of data.schema is unknown; known are '
        f'{", ".join(known)}. Change data.schema, or add a table with that column.'
      )
    else:
      table.column_of(attribute)
      try:
        value = None if index is None else table.attribute(index, attribute)
        found[attribute.name] = value
      except ValueError as error:
        faults.append(str(error))
  if faults:
    raise ValueError(' '.join(faults))
  return found


def require_attributes(table: Table, schema: Schema, known: Iterable[str]) -> None:
  """Raises ValueError for an attribute that neither the layout nor the table knows."""
  known = set(known)
  for attribute in schema:
    if attribute.name not in known:
      table.column_of(attribute)


def index_by(
  table: Table,
  column: str,
  purpose: str,
  notes: list[str],
  key: Callable[[str], str] = str.strip,
) -> dict[str, list[int]]:
  """Id -> numbers of its rows, in their order.

  Args:
    table: the table.
    column: of the ids.
    purpose: what the ids name, for the error when the column is absent.
    notes: receives a message for each row without an id.
    key: normalises the spelling of an id.
  """
  column = table.require(column, purpose, 'the table')
  found: dict[str, list[int]] = {}
  for index, row in enumerate(table.rows):
    if is_missing(row[column]):
      notes.append(f'{table.where(index, column)}: no id, the row is left out')
    else:
      found.setdefault(key(row[column]), []).append(index)
  return found


def require_folder(root: str | os.PathLike, key: str = 'root') -> pathlib.Path:
  """Returns the folder, or raises ValueError when it is missing or empty."""
  path = pathlib.Path(root).expanduser()
  if not str(root) or not os.path.isdir(path):  # also false for an impossible name
    raise ValueError(
      f'The data folder {str(root)!r} does not exist or is no folder; expected a '
      f'folder of scans. Set {key} of the data section (or root=... after the config).'
    )
  try:
    empty = not any(path.iterdir())
  except OSError as error:
    advice = f'Change its permissions or set {key} of the data section.'
    raise streams.unreadable(path, error, 'a folder of scans', advice) from error
  if empty:
    raise ValueError(
      f'The data folder {path} is empty; expected a folder of scans with a table of '
      f'patients. Fill it or set {key} of the data section.'
    )
  return path


def find(root: pathlib.Path, name: str = '') -> pathlib.Path:
  """Path of the table in `root`: `name`, participants.tsv/.csv, or the only table.

  Raises:
    ValueError: there is none, or more than one to choose from.
  """
  if name:
    path = root / name
    if not path.is_file():
      raise ValueError(
        f'The table {path} does not exist; expected a TSV or CSV file. Set '
        'options.table of the data section.'
      )
    return path
  for usual in NAMES:
    if (root / usual).is_file():
      return root / usual
  files = sorted(root.iterdir())  # also pipes and folders, which reading names
  of = lambda *suffixes: [p for p in files if p.suffix.lower() in suffixes]
  found = of('.tsv', '.csv') or of(rows.SHEET_SUFFIX)
  if len(found) == 1:
    return found[0]
  listed = ', '.join(p.name for p in found[:5]) or 'none'
  if not found and (sheets := of(*rows.WORKBOOKS)):
    listed = f'only {sheets[0].name}, which is not read (save its sheet as CSV)'
  raise ValueError(
    f'{root} needs one table of patients; found: {listed}. Add participants.tsv (a '
    'subject column and one column per attribute) or set options.table of the data '
    'section.'
  )


def read(path: str | os.PathLike) -> Table:
  """Reads a TSV, CSV or XLS file. Raises ValueError as `rows.read`."""
  path = pathlib.Path(path)
  return Table(path, *rows.read(path))


def listed(columns: Iterable[str]) -> str:
  """The names of columns for a message: at most 20."""
  columns = list(columns)
  more = f' and {len(columns) - 20} more' if len(columns) > 20 else ''
  return ', '.join(column[:60] for column in columns[:20]) + more
