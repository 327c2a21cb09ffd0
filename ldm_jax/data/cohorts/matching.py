"""Compares the ids of a table with those of a folder: who is on one side only?"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Collection, Mapping

from ldm_jax.data.readers.dicom import container
from ldm_jax.data.readers.picture import SUFFIXES

NOTABLE = 0.1  # share of unmatched rows or scans that is reported as a headline
NUM_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Matching:
  """Ids of the rows of a table and of the patients whose scans are there.

  Attributes:
    rows, scans: how many patients each has.
    rows_alone, scans_alone: unmatched ids, as the table and the folder write them.
    table: name of the table's file.
  """

  rows: int
  scans: int
  rows_alone: tuple[str, ...]
  scans_alone: tuple[str, ...]
  table: str

  @property
  def headline(self) -> str:
    """What does not match, with examples; '' for less than NOTABLE."""
    alone = (len(self.rows_alone), self.rows), (len(self.scans_alone), self.scans)
    if not any(count and count >= NOTABLE * total for count, total in alone):
      return ''
    parts = []
    if self.rows_alone:
      parts.append(
        f'{len(self.rows_alone)} of {self.rows} patients of {self.table} have no scan '
        f'(such as {_examples(self.rows_alone)})'
      )
    if self.scans_alone:
      parts.append(
        f'{len(self.scans_alone)} of {self.scans} patients with scans have no row in '
        f'{self.table} (such as {_examples(self.scans_alone)})'
      )
    return f'{" and ".join(parts)}. {self._remedy()}'

  def _remedy(self) -> str:
    bare = {_bare(name) for name in self.scans_alone}
    agreeing = sum(_bare(name) in bare for name in self.rows_alone)
    if agreeing:
      return (
        f'{agreeing} agree except for leading zeros, prefixes or case: write the ids '
        'of the table as in the file names.'
      )
    return 'Expected the same ids in both: correct the table, or add what is missing.'


def same_patients(rows: Collection[str], scans: Collection[str]) -> dict[str, str]:
  """Id of a scan -> id of the row of the same patient, which it may spell otherwise.

  Ids that are equal belong together. Of the others, those that differ by leading zeros
  (or by the '.0' that programs add to numbers) alone do, unless several ids do.

  Args:
    rows: ids in the table.
    scans: ids in the names of files or folders.
  """
  found = {name: name for name in set(rows) & set(scans)}
  spellings: tuple[dict[str, list[str]], ...] = ({}, {})
  for names, spelt in zip((rows, scans), spellings, strict=True):
    for name in sorted(set(names)):  # also matched ones: '1' and '01' are ambiguous
      spelt.setdefault(without_zeros(name), []).append(name)
  for name, written in spellings[1].items():
    own = spellings[0].get(name, [])
    if len(own) == len(written) == 1:
      found[written[0]] = own[0]
  return found


def spelt_alike(names: Collection[str]) -> list[str]:
  """A note on ids of one cohort that differ by leading zeros alone; none without."""
  groups: dict[str, list[str]] = {}
  for name in sorted(set(names)):
    groups.setdefault(without_zeros(name), []).append(name)
  found = [' and '.join(group) for group in groups.values() if len(group) > 1]
  if not found:
    return []
  return [
    f'{len(found)} times ids differ by leading zeros alone ({_examples(found)}) and '
    'count as different patients, each with a privacy guarantee of its own; where they '
    'mean one patient, write them alike in the table'
  ]


def without_zeros(name: str) -> str:
  """The id without leading zeros of its numbers: 'P-007', '7.0' -> 'P-7', '7'."""
  name = re.sub(r'^(\d+)\.0+$', r'\1', name.strip())
  return re.sub(r'(?<!\d)0+(?=\d)', '', name)


def compare(
  rows: Collection[str],
  scans: Collection[str],
  table: str,
  shown: Mapping[str, str] | None = None,
) -> Matching:
  """Compares the ids of a table's rows with those of the patients with scans.

  Args:
    rows, scans: ids, as `same_patients` brings them together.
    table: name of the table's file.
    shown: id -> how the folder writes it, where that differs.
  """
  shown, same = shown or {}, same_patients(rows, scans)
  scans = {same.get(name, name) for name in scans}
  alone = (sorted(set(rows) - set(scans)), sorted(set(scans) - set(rows)))
  written = tuple(shown.get(name, name) for name in alone[1])
  return Matching(len(set(rows)), len(set(scans)), tuple(alone[0]), written, table)


def ids_in_names(
  root: str | os.PathLike,
  pattern: str,
  holes: Collection[str],
  labels: str = '',
  folders: bool = False,
) -> dict[str, list[str]]:
  """Id -> files whose names match a pattern with that id; {} without a hole for it.

  Args:
    root: folder of the files.
    pattern: of their paths, such as 'images/{subject}.nii*'.
    holes: names of the hole that stands for the id.
    labels: pattern of files that are left out, or ''.
    folders: also paths that may hold DICOM.
  """
  if not any(f'{{{hole}}}' in pattern for hole in holes):
    return {}
  listing = re.sub(r'\{[^{}]*\}', '*', pattern)
  reads = re.compile(_expression(pattern, holes))
  ignored = re.compile(_expression(labels, holes)) if '{' in labels else None
  found: dict[str, list[str]] = {}
  for path in glob.iglob(listing, root_dir=root):
    match = reads.fullmatch(path)
    is_scan = path.lower().endswith(('.nii', '.nii.gz', *SUFFIXES))
    is_scan = is_scan or (folders and container.is_dicom(os.path.join(root, path)))
    if match and is_scan and not (ignored and ignored.fullmatch(path)):
      found.setdefault(match['id'], []).append(path)
  return found


def strangers(
  root: str | os.PathLike,
  pattern: str,
  holes: Collection[str],
  known: Collection[str],
  labels: str = '',
) -> set[str]:
  """Ids in names of files that match a pattern but belong to no known patient.

  A name that begins with a known id ('P01_T2' beside 'P01') is another file of that
  patient.

  Args:
    root: folder of the files.
    pattern: of their paths, such as 'images/{subject}.nii*'; without a hole there is no
      id to read.
    holes: names of the hole that stands for the id.
    known: ids of the patients.
    labels: pattern of files that are no scans, or ''.
  """
  found = ids_in_names(root, pattern, holes, labels)
  known, ends = set(known), re.compile(r'[^0-9A-Za-z]')
  begins = lambda name: any(name[: m.start()] in known for m in ends.finditer(name))
  return {name for name in found if name not in known and not begins(name)}


def _expression(pattern: str, holes: Collection[str]) -> str:
  """A pattern of paths as a regular expression whose group 'id' is the first hole."""
  parts, seen = [], False
  for piece in re.split(r'(\{[^{}]*\}|\*+|\?)', pattern):
    if piece.strip('{}') in holes and piece.startswith('{'):
      parts.append('(?P=id)' if seen else '(?P<id>[^/]+?)')
      seen = True
    elif piece.startswith('{') or (piece and not piece.strip('*')):
      parts.append('.*' if piece == '**' else '[^/]*')
    else:
      parts.append('[^/]' if piece == '?' else re.escape(piece))
  return ''.join(parts)


def _bare(name: str) -> str:
  """The id without prefix and leading zeros: 'sub-0050701', '50701' -> '50701'."""
  name = name.lower()
  numbers = re.findall(r'\d+', name)
  return '-'.join(number.lstrip('0') for number in numbers) if numbers else name


def _examples(names: Collection[str]) -> str:
  return ', '.join(name[:60] for name in list(names)[:NUM_EXAMPLES])
