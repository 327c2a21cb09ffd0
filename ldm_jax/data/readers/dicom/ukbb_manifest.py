"""The table beside the DICOM files of a UK Biobank zip: file name -> series, date.

It is called manifest.csv, or manifest.cvs; its column of series is spelt 'series
discription'; and its dates contain an unquoted comma ("Aug 7, 2015"), which would split
a line into one cell too many.
"""

from __future__ import annotations

import csv
import fnmatch
import re

from ldm_jax.data.readers.dicom.container import Container, Member

NAMES = ('manifest.csv', 'manifest.cvs')
FILE_COLUMNS = ('filename', 'file name', 'file')
SERIES_COLUMNS = ('series discription', 'series description', 'seriesdescription')
BROKEN_DATE = re.compile(r'\b([A-Za-z]{3,9}\.? \d{1,2}), ?(\d{4})\b')
MAX_BYTES = 2**26


def series_of(container: Container) -> dict[str, str]:
  """File name -> description of its series; {} without a complete manifest."""
  member, rows = _member(container), _rows(container)
  if member is None or not rows:
    return {}
  files, series = (
    next((i for i, cell in enumerate(rows[0]) if cell.lower() in known), None)
    for known in (FILE_COLUMNS, SERIES_COLUMNS)
  )
  # A line that does not fit the header would lose a file: use the DICOM headers.
  if files is None or series is None or any(len(r) != len(rows[0]) for r in rows):
    return {}
  folder = member.name.rpartition('/')[0]
  names = {}
  for cells in rows[1:]:
    if cells[files]:
      names[f'{folder}/{cells[files]}'.lstrip('/')] = cells[series]
  return names


def year(container: Container) -> int | None:
  """Year of the examination, from the first date in the manifest; None without one."""
  for cells in _rows(container)[1:]:
    for cell in cells:
      found = re.fullmatch(r'[A-Za-z]{3,9}\.? \d{1,2} (\d{4})', cell)
      found = found or re.match(r'(\d{4})-\d{2}-\d{2}', cell)
      if found:
        return int(found[1])
  return None


def matches(description: str, pattern: str) -> bool:
  """Whether a description matches a pattern with * and ?, ignoring case."""
  return fnmatch.fnmatchcase(description.strip().lower(), pattern.strip().lower())


def repair(line: str) -> str:
  """'..., Aug 7, 2015, ...' -> '..., Aug 7 2015, ...'."""
  return BROKEN_DATE.sub(r'\1 \2', line)


def _member(container: Container) -> Member | None:
  for member in container.members:
    if member.name.rpartition('/')[2].lower() in NAMES and member.size <= MAX_BYTES:
      return member
  return None


def _rows(container: Container) -> list[list[str]]:
  member = _member(container)
  if member is None:
    return []
  text = container.read(member).decode('utf-8-sig', errors='replace')
  try:
    rows = list(csv.reader(repair(line) for line in text.splitlines()))
  except csv.Error:
    return []
  return [[cell.strip() for cell in cells] for cells in rows if any(cells)]
