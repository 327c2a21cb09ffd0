"""Preprocessed volumes on disk, named by what they were made from.

  <root>/volumes/<key>.safetensors   one scan (`entries`)
  <root>/latents/<...>.npy           latents of a split by one autoencoder (`latents`)
  <root>/<cohort>.json               which scans form a cohort, attributes, problems
  <root>/fingerprints.json           hashes of unchanged files (`fingerprints`)

A scan's key hashes its bytes and the preprocessing, so that a changed input is a new
entry and an interrupted run continues. Every file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ldm_jax import atomic, processes
from ldm_jax.data.cohorts import roles
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.store import entries, remarks
from ldm_jax.data.store.fingerprints import Fingerprints
from ldm_jax.data.store.split import Split

VERSION = entries.VERSION
NUM_LISTED = 5


def prepare(
  store_dir: str | os.PathLike,
  cohort: Cohort,
  spec: Spec,
  *,
  max_bad_fraction: float = 0.0,
  progress: Callable[[int, int], None] | None = None,
  workers: int = 0,
  index: str | os.PathLike | None = None,
  explain: Callable[[str], str] = str,
) -> dict[str, Any]:
  """Preprocesses the scans that are not stored yet, then writes the cohort's index.

  Args:
    store_dir: folder of the store.
    cohort: whose `name` names the index.
    spec: how volumes become arrays.
    max_bad_fraction: share of records that may be unreadable; they are listed.
    progress: called with (records done, records in all).
    workers: threads; 0 is two per core, because half of them wait for the disk.
    index: file to write the index to, instead of the store's own.
    explain: turns the reason why a scan cannot be used into one that names flags.

  Returns:
    The index: name, schema, spec, entries, problems [{id, path, reason}], warnings,
    remarks (`remarks.lines`).

  Raises:
    ValueError: an empty cohort, more unreadable records than allowed, or none left.
    OSError: the store cannot be written (full disk); what was stored stays valid.
  """
  root = pathlib.Path(store_dir)
  if not cohort.records:
    raise ValueError(
      f'Cohort {cohort.name!r} holds no scans; expected at least one. Set its data '
      'section (layout, root), give it a larger share in data.split, or set another '
      'data.split_seed.'
    )
  _remove_abandoned(root / 'volumes')
  known = Fingerprints(root / 'fingerprints.json')
  found, problems, warnings = [], [], []
  workers = workers or 2 * (os.cpu_count() or 1)
  listed = _listed(root / f'{cohort.name}.json')
  outcomes = entries.make(root, cohort, spec, known, listed, workers)
  with contextlib.closing(outcomes):
    for done, (record, outcome) in enumerate(
      zip(cohort.records, outcomes, strict=True)
    ):
      if isinstance(outcome, ValueError):
        path = str(getattr(record.source, 'image', ''))
        reason = explain(str(outcome))
        problems.append({'id': record.id, 'path': path, 'reason': reason})
      else:
        found.append(outcome)
        warnings += [
          f'{record.id}: {text}'
          for text in cohort.schema.out_of_range(record.attributes)
        ]
      if progress is not None:
        progress(done + 1, len(cohort.records))
  known.save()
  _check_problems(cohort, problems, max_bad_fraction)
  content = {
    'version': VERSION,
    'name': cohort.name,
    'schema': cohort.schema.to_config(),
    'spec': spec.to_config(),
    'entries': found,
    'slices': _slices(found),
    'problems': problems,
    'warnings': warnings + _repeated_scans(found),
    'notes': list(cohort.notes),
  }
  limit = len(found) if cohort.name in roles.CONFIDENTIAL else remarks.NUM_NAMED
  content['remarks'] = remarks.lines(scans_of(content, cohort), limit)
  _write_index(pathlib.Path(index or root / f'{cohort.name}.json'), content)
  return content


def make_share(
  store_dir: str | os.PathLike, cohorts: Sequence[Cohort], spec: Spec, workers: int = 0
) -> None:
  """Preprocesses this process's share of the scans that are not stored yet.

  Several processes call it before the first one calls `prepare`, which then finds all
  of them stored and says what is wrong with those that are not.

  Args:
    store_dir: folder of the store, which the processes share.
    cohorts: all that are prepared.
    spec: how volumes become arrays.
    workers: threads, as in `prepare`.
  """
  root, workers = pathlib.Path(store_dir), workers or 2 * (os.cpu_count() or 1)
  known = Fingerprints(root / 'fingerprints.json')
  with processes.all_writing():
    for cohort in cohorts:
      own = dataclasses.replace(cohort, records=tuple(processes.share(cohort.records)))
      for _ in entries.make(root, own, spec, known, {}, workers):
        pass
    place = root / f'fingerprints-{processes.number()}.json'
    known.save(place)
  processes.barrier()
  if processes.is_first():
    for path in sorted(root.glob('fingerprints-*.json')):
      known.learn(Fingerprints(path))
      path.unlink(missing_ok=True)
    known.save()


def scans_of(index: Mapping[str, Any], cohort: Cohort) -> list[remarks.Scan]:
  """The scans of an index, named by the files of its cohort."""
  files = {
    record.id: os.path.basename(getattr(record.source, 'image', '').partition('#')[0])
    for record in cohort.records
  }
  return remarks.of_index(index, files)


class UnusableScans(ValueError):
  """More scans of a public cohort cannot be used than the config allows.

  Attributes:
    lines: one for each scan, with its id and the reason.
  """

  def __init__(self, message: str, lines: Sequence[str]):
    super().__init__(message)
    self.lines = tuple(lines)


def slices_in_words(index: dict[str, Any]) -> list[str]:
  """Sentences about jumps of brightness between slices; [] without any.

  Args:
    index: as returned by `prepare`.
  """
  found = index['slices']
  if not found['scans_with_jumps'] and not found['scans_scaled_slice_by_slice']:
    return []
  remedy = 'they are evened out'
  if not index['spec']['harmonise_slices']:
    remedy = 'data.preprocess.harmonise_slices=True evens them out'
  return [
    f'{found["scans_with_jumps"]} of {found["scans"]} scans jump in brightness from '
    f'slice to slice, by a factor up to {found["largest"]:.2f}, and '
    f'{found["scans_scaled_slice_by_slice"]} seem to be scaled slice by slice; {remedy}'
  ]


def open_split(
  store_dir: str | os.PathLike,
  name: str,
  schema: Schema | None = None,
  spec: Spec | None = None,
  index: str | os.PathLike | None = None,
) -> Split:
  """Opens a prepared cohort.

  Args:
    store_dir: folder of the store.
    name: of the cohort.
    schema: checked against the stored one when given.
    spec: checked against the stored one when given.
    index: file to read instead of the store's own.

  Raises:
    ValueError: not prepared, damaged, or prepared with another schema, preprocessing or
      version of this software.
  """
  path = pathlib.Path(index or pathlib.Path(store_dir) / f'{name}.json')
  try:
    content = json.loads(path.read_text())
  except (OSError, json.JSONDecodeError) as error:
    raise ValueError(
      f'The store has no readable index {path} ({error}); expected a prepared '
      f'cohort. Run the stage prepare, with data.{name} set.'
    ) from error
  if not isinstance(content, dict) or 'version' not in content:
    raise ValueError(
      f'The index {path} is damaged: expected a JSON object with a version. Run the '
      'stage prepare again.'
    )
  if content['version'] != VERSION:
    raise ValueError(
      f'{path} was prepared by another version of this software (store version '
      f'{content["version"]}, expected {VERSION}). Run the stage prepare again.'
    )
  if spec is not None and spec.to_config() != content['spec']:
    changed = [k for k, v in spec.to_config().items() if content['spec'].get(k) != v]
    raise ValueError(
      f'{path} was prepared with another data.preprocess ({", ".join(changed)} '
      'differ); expected the one of the config. Run the stage prepare again, or set '
      'config.data.preprocess back.'
    )
  stored = Schema.from_config(content['schema'])
  if schema is not None and schema.to_config() != stored.to_config():
    raise ValueError(
      f'{path} was prepared with the attributes {list(stored.names)}, expected '
      f'{list(schema.names)} with the same ranges. Run the stage prepare again.'
    )
  return Split(pathlib.Path(store_dir), content, stored)


def check_distinct(splits: Mapping[str, Split]) -> None:
  """Raises ValueError when two cohorts hold the same scan, byte by byte.

  It names the scans, unless they are confidential (`roles.ConfidentialError`).
  """
  seen: dict[str, tuple[str, str]] = {}
  for name, split in splits.items():
    for key, record in zip(split.keys, split.ids, strict=True):
      if key in seen and seen[key][0] != name:
        both, remedy = (name, seen[key][0]), 'Remove one of the two.'
        rule = 'a patient may be in one cohort only, under whatever id'
        told = (
          f'The scan {record!r} of {name!r} is the same file as {seen[key][1]!r} of '
          f'{seen[key][0]!r}; {rule}. {remedy}'
        )
        inside = [each for each in both if each in roles.CONFIDENTIAL]
        if inside:
          raise roles.ConfidentialError(
            f'A scan of {name!r} is the same file as one of {seen[key][0]!r}; {rule}. '
            f'{remedy}',
            {inside[0]: [told]},
          )
        raise ValueError(told)
      seen[key] = (name, record)


def _write_index(path: pathlib.Path, index: dict) -> None:
  text = json.dumps(index, allow_nan=False)
  with contextlib.suppress(OSError, UnicodeDecodeError):
    if path.read_text() == text:
      return
  atomic.write_bytes(path, text.encode())


def _listed(path: pathlib.Path) -> dict[str, dict]:
  """Key -> entry of the index that was written last time; {} without one."""
  try:
    index = json.loads(path.read_text())
    return {entry['key']: entry for entry in index['entries']}
  except (OSError, ValueError, KeyError, TypeError):
    return {}


def _slices(found: list[dict]) -> dict[str, Any]:
  """How many scans have jumps of intensity from slice to slice, and how large."""
  reports = [entry['slices'] for entry in found]
  counted = Counter(report['jumps'] for report in reports)
  return {
    'scans': len(reports),
    'scans_with_jumps': len(reports) - counted[0],
    'scans_scaled_slice_by_slice': sum(report['scaled_alone'] for report in reports),
    'largest': max((report['largest'] for report in reports), default=1.0),
  }


def _check_problems(cohort: Cohort, problems: list, max_bad_fraction: float) -> None:
  total, bad = len(cohort.records), len(problems)
  if not bad or (bad <= max_bad_fraction * total and bad < total):
    return
  lines = [f'{p["id"]}: {p["reason"].rstrip(".")}' for p in problems]
  is_confidential = cohort.name in roles.CONFIDENTIAL
  which = 'Scans' if is_confidential else f'{bad} of the {total} scans'
  found = (
    f'{which} of cohort {cohort.name!r} cannot be used, more than '
    f'data.max_bad_fraction={max_bad_fraction:g} allows'
  )
  remedy = 'Repair or remove them, or raise data.max_bad_fraction.'
  if is_confidential:
    raise roles.ConfidentialError(f'{found}. {remedy}', {cohort.name: lines})
  more = f'; and {bad - NUM_LISTED} more' if bad > NUM_LISTED else ''
  text = f'{found}: {"; ".join(lines[:NUM_LISTED])}{more}. {remedy}'
  raise UnusableScans(text, lines)


def _repeated_scans(found: list[dict]) -> list[str]:
  seen: dict[str, dict] = {}
  messages = []
  for entry in found:
    first = seen.setdefault(entry['key'], entry)
    if first['id'] != entry['id']:
      messages.append(f'{entry["id"]}: the same file as {first["id"]}')
  return messages


def _remove_abandoned(folder: pathlib.Path, age_seconds: float = 3600.0) -> None:
  """Removes temporary files that killed processes left; files in use are younger."""
  for path in folder.glob(f'{atomic.TEMPORARY_PREFIX}*'):
    with contextlib.suppress(OSError):
      if time.time() - path.stat().st_mtime > age_seconds:
        path.unlink()
