"""Rows of a data set's table and its patients: which row is whose, who lacks what."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from ldm_jax.data.cohorts import matching
from ldm_jax.data.cohorts.attributes import is_missing
from ldm_jax.data.tables.table import Table

Found = TypeVar('Found')


def one_each(
  table: Table, column: str, purpose: str, key: Callable[[str], str] = str.strip
) -> dict[str, int]:
  """Patient -> number of the row, for a table that has one row per patient.

  Args:
    table: the table.
    column: of the patients' ids.
    purpose: what the ids name, for the error when the column is absent.
    key: brings the spellings of one id together.

  Raises:
    ValueError: no such column, a row without an id, or two rows of one patient.
  """
  table.require(column, purpose, 'the table')
  rows: dict[str, int] = {}
  for index, row in enumerate(table.rows):
    fault = 'has no id' if is_missing(row[column]) else ''
    if rows.setdefault(key(row[column]), index) != index:
      fault = 'appears twice'
    if fault:
      raise ValueError(
        f'{table.where(index, column)}: patient {row[column]!r} {fault}; expected one '
        'row per patient. Correct the table.'
      )
  return rows


def by_scan(
  rows: Mapping[str, Found], scans: Collection[str], notes: list[str]
) -> dict[str, Found]:
  """Id of a scan -> its row or rows, for the ids that mean a patient of the table.

  Ids may differ by leading zeros (`matching.same_patients`); `notes` says how many do.

  Args:
    rows: id in the table -> row or rows.
    scans: ids in the names of files or folders.
    notes: receives one message about ids that are spelt differently.
  """
  same = matching.same_patients(rows, scans)
  spelt = sorted((row, scan) for scan, row in same.items() if row != scan)
  if spelt:
    notes.append(
      f'{len(spelt)} ids of the table differ from those of the scans by leading zeros '
      f'and were matched, such as {spelt[0][0]} with {spelt[0][1]}'
    )
  return {scan: rows[row] for scan, row in same.items()}


def only(
  patient: str, indices: Sequence[int], table: Table, notes: list[str]
) -> int | None:
  """The row of a patient who may have one at most; without one, `notes` says so.

  Raises:
    ValueError: more than one row.
  """
  if len(indices) > 1:
    raise ValueError(
      f'{patient} has {len(indices)} rows in {table.path}; expected one. Remove the '
      'others.'
    )
  if not indices:
    notes.append(f'{patient}: without a row in {table.path.name}')
    return None
  return indices[0]


def match(
  table: Table,
  rows: Collection[str],
  scans: Collection[str],
  notes: list[str],
  missing: str = '',
  shown: Mapping[str, str] | None = None,
) -> matching.Matching:
  """Compares the ids of rows and scans; `notes` receives who has no scan.

  Args:
    table: of the patients.
    rows, scans: ids, spelt alike where they mean one patient.
    notes: receives a message for each row without a scan.
    missing: what such a row lacks, for example 'a folder'. '' where the table lists
      everybody and the folder only what was downloaded: then rows without a scan are
      normal and only counted.
    shown: id -> how messages write it, where that differs.
  """
  shown, name = shown or {}, table.path.name
  same = matching.same_patients(rows, scans)
  shown = {same[scan]: scan for scan in same if same[scan] != scan} | dict(shown)
  scans = {same.get(scan, scan) for scan in scans}
  absent = sorted(set(rows) - set(scans))
  if missing:
    notes += [f'{shown.get(p, p)}: in {name} but without {missing}' for p in absent]
    return matching.compare(rows, scans, name, shown)
  if absent:
    example = shown.get(absent[0], absent[0])
    notes.append(f'{len(absent)} patients of {name} have no scan, such as {example}')
  return matching.compare(set(rows) & set(scans), scans, name, shown)
