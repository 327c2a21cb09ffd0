"""Preprocessed volumes on disk, named by what they were made from.

  <root>/volumes/<key>.npz    array, mask, [label], record of one scan
  <root>/latents/<...>.npy    latents of a split by one autoencoder
  <root>/<cohort>.json        which scans form a cohort, their attributes, the problems

The key hashes the scan's bytes, the preprocessing spec and this file's version, so a
changed input is a new entry, an interrupted run continues, and two processes that write
the same entry write the same bytes. Every file appears whole or not at all.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import io
import json
import math
import os
import pathlib
import time
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from ldm_jax.data import atomic, preprocess
from ldm_jax.data.attributes import Schema
from ldm_jax.data.cohort import Cohort, Record
from ldm_jax.data.preprocess import Spec
from ldm_jax.data.split import Split

VERSION = 1
NUM_LISTED = 5


def prepare(
  store_dir: str | os.PathLike,
  cohort: Cohort,
  spec: Spec,
  *,
  max_bad_fraction: float = 0.0,
  progress: Callable[[int, int], None] | None = None,
  workers: int = 2,
) -> dict[str, Any]:
  """Preprocesses the scans that are not stored yet, then writes the cohort's index.

  Args:
    store_dir: folder of the store.
    cohort: whose `name` names the index.
    spec: how volumes become arrays.
    max_bad_fraction: share of records that may be unreadable; they are listed.
    progress: called with (records done, records in all).
    workers: threads that read and resample.

  Returns:
    The index: name, schema, spec, entries, problems [{id, path, reason}], warnings.

  Raises:
    ValueError: an empty cohort, more unreadable records than allowed, or none left.
    OSError: the store cannot be written (full disk); what was stored stays valid.
  """
  root = pathlib.Path(store_dir)
  if not cohort.records:
    raise ValueError(
      f'Cohort {cohort.name!r} holds no scans; required is at least one. Set its data '
      'section (layout, root), or give it a larger share in data.split.'
    )
  _remove_abandoned(root / 'volumes')
  entries, problems, warnings = [], [], []
  pool = concurrent.futures.ThreadPoolExecutor(max(1, workers))
  try:
    outcomes = pool.map(
      lambda r: _prepare_record(root, cohort, spec, r), cohort.records
    )
    for done, (record, outcome) in enumerate(
      zip(cohort.records, outcomes, strict=True)
    ):
      if isinstance(outcome, ValueError):
        path = str(getattr(record.source, 'image', ''))
        problems.append({'id': record.id, 'path': path, 'reason': str(outcome)})
      else:
        entries.append(outcome)
        warnings += [
          f'{record.id}: {text}'
          for text in cohort.schema.out_of_range(record.attributes)
        ]
      if progress is not None:
        progress(done + 1, len(cohort.records))
  finally:
    pool.shutdown(cancel_futures=True)
  _check_problems(cohort, problems, max_bad_fraction)
  index = {
    'version': VERSION,
    'name': cohort.name,
    'schema': cohort.schema.to_config(),
    'spec': spec.to_config(),
    'entries': entries,
    'problems': problems,
    'warnings': warnings + _repeated_scans(entries),
    'notes': list(cohort.notes),
  }
  atomic.write_json(root / f'{cohort.name}.json', index)
  return index


def open_split(
  store_dir: str | os.PathLike,
  name: str,
  schema: Schema | None = None,
  cache_bytes: int = 2**31,
) -> Split:
  """Opens a prepared cohort.

  Args:
    store_dir: folder of the store.
    name: of the cohort.
    schema: checked against the stored one when given.
    cache_bytes: memory for volumes that were read; the rest is read again from disk.

  Raises:
    ValueError: not prepared, damaged, or prepared with another schema.
  """
  path = pathlib.Path(store_dir) / f'{name}.json'
  try:
    index = json.loads(path.read_text())
  except (OSError, json.JSONDecodeError) as error:
    raise ValueError(
      f'The store has no readable index {path} ({error}); required is a prepared '
      f'cohort. Run the stage prepare, with data.{name} set.'
    ) from error
  stored = Schema.from_config(index['schema'])
  if schema is not None and schema.to_config() != stored.to_config():
    raise ValueError(
      f'{path} was prepared with the attributes {list(stored.names)}, asked for are '
      f'{list(schema.names)} (or their ranges differ). Run the stage prepare again.'
    )
  return Split(pathlib.Path(store_dir), index, stored, cache_bytes)


def check_distinct(splits: dict[str, Split]) -> None:
  """Raises ValueError when one scan, byte by byte, stands in two cohorts."""
  seen = {}
  for name, split in splits.items():
    for key, record in zip(split.keys, split.ids, strict=True):
      if key in seen and seen[key][0] != name:
        raise ValueError(
          f'The scan {record!r} of {name!r} is the same file as {seen[key][1]!r} of '
          f'{seen[key][0]!r}; required is that no patient stands in two cohorts, under '
          'whatever id. Remove one of the two.'
        )
      seen[key] = (name, record)


def write_latents(
  store_dir: str | os.PathLike, split: Split, tag: str, array: np.ndarray
) -> None:
  """Stores the latents (n,d,h,w,c) of a split; `tag` names the autoencoder.

  Raises:
    ValueError: not one latent per entry, or values that are not finite.
    OSError: the store cannot be written.
  """
  array = np.asarray(array)
  if array.shape[:1] != (len(split),) or not np.isfinite(array).all():
    raise ValueError(
      f'Latents of shape {array.shape} with {int((~np.isfinite(array)).sum())} '
      f'non-finite values came; required are {len(split)} finite latents, one per '
      'entry. The autoencoder has diverged: lower autoencoder.learning_rate.'
    )
  buffer = io.BytesIO()
  np.save(buffer, array)
  atomic.write_bytes(_latents_path(store_dir, split, tag), buffer.getbuffer())


def read_latents(
  store_dir: str | os.PathLike, split: Split, tag: str
) -> np.ndarray | None:
  """Returns the stored latents (n,d,h,w,c), memory-mapped, or None."""
  path = _latents_path(store_dir, split, tag)
  if not path.exists():
    return None
  array = np.load(path, mmap_mode='r')
  return array if len(array) == len(split) else None


def record_key(record: Record, spec: Spec) -> str:
  """Name of a record's entry: SHA-256 of scan, spec and version."""
  text = f'{VERSION}:{spec.digest()}:{record.source.fingerprint()}'
  return hashlib.sha256(text.encode()).hexdigest()


def _prepare_record(root: pathlib.Path, cohort: Cohort, spec: Spec, record: Record):
  """Index entry of one record, or the ValueError that says what is wrong with it."""
  try:
    codes = cohort.schema.encode(record.attributes)
    key = record_key(record, spec)
    path = root / 'volumes' / f'{key}.npz'
    content = None if _is_whole(path) else _content(spec, record)
  except ValueError as error:
    return error
  if content is not None:
    atomic.write_bytes(path, content)  # its OSError is the disk's fault, not the scan's
  return {
    'id': record.id,
    'patient': record.patient,
    'visit': record.visit,
    'phase': record.phase,
    'phase_by': record.phase_by,
    'key': key,
    'attributes': [None if math.isnan(code) else float(code) for code in codes],
  }


def _content(spec: Spec, record: Record) -> memoryview:
  processed = preprocess.apply(spec, *record.source.read())
  arrays = {'array': processed.array, 'mask': processed.mask}
  if processed.label is not None:
    arrays['label'] = processed.label
  text = json.dumps(processed.record).encode()
  buffer = io.BytesIO()
  np.savez(buffer, **arrays, record=np.frombuffer(text, np.uint8))
  return buffer.getbuffer()


def _is_whole(path: pathlib.Path) -> bool:
  try:
    with np.load(path) as entry:
      return 'record' in entry.files
  except (OSError, ValueError, zipfile.BadZipFile):
    return False


def _check_problems(cohort: Cohort, problems: list, max_bad_fraction: float) -> None:
  total, bad = len(cohort.records), len(problems)
  if not bad or (bad <= max_bad_fraction * total and bad < total):
    return
  listed = '; '.join(
    f'{p["id"]}: {p["reason"].rstrip(".")}' for p in problems[:NUM_LISTED]
  )
  more = f'; and {bad - NUM_LISTED} more' if bad > NUM_LISTED else ''
  raise ValueError(
    f'{bad} of the {total} scans of cohort {cohort.name!r} cannot be used, more than '
    f'data.max_bad_fraction={max_bad_fraction:g} allows: {listed}{more}. Repair or '
    'remove them, or raise data.max_bad_fraction.'
  )


def _repeated_scans(entries: list[dict]) -> list[str]:
  seen, messages = {}, []
  for entry in entries:
    first = seen.setdefault(entry['key'], entry)
    if first['id'] != entry['id']:
      messages.append(f'{entry["id"]}: the same file as {first["id"]}')
  return messages


def _remove_abandoned(folder: pathlib.Path, age_seconds: float = 3600.0) -> None:
  """Removes temporary files of killed processes; live ones are younger."""
  for path in folder.glob(f'{atomic.TEMPORARY_PREFIX}*'):
    with contextlib.suppress(OSError):
      if time.time() - path.stat().st_mtime > age_seconds:
        path.unlink()


def _latents_path(store_dir, split: Split, tag: str) -> pathlib.Path:
  text = json.dumps([tag, split.keys])
  name = hashlib.sha256(text.encode()).hexdigest()
  return pathlib.Path(store_dir) / 'latents' / f'{name}.npy'
