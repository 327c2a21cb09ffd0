"""Scans -> entries of the store, in parallel; what is there already is not made again.

An entry is named by the SHA-256 of the scan's fingerprint, the preprocessing and
VERSION: a changed input is another entry, and two processes that make one make the same
bytes.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import math
import os
import time
from typing import Any

from threadpoolctl import threadpool_limits

from ldm_jax.data.cohorts.cohort import Cohort, Record
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.store import entries
from ldm_jax.data.store.fingerprints import Stamps

VERSION = 2  # of what an entry holds for the same scan and spec


def record_key(record: Record, spec: Spec) -> str:
  """Name of a record's entry."""
  return _key(spec.digest(), record.source.fingerprint())


def outcomes(root, cohort, spec, stamps: Stamps, listed: dict, workers: int):
  """Per record its index entry, or the ValueError that says what is wrong with it.

  What `listed` (key -> index entry of the last time) knows is not looked at closely.
  Threads, not processes: reading, unpacking, hashing and resampling leave Python alone.
  What they call must not start threads of its own, or they fight for the cores.
  """
  digest = spec.digest()
  known = [_known(root, cohort, digest, stamps, listed, r) for r in cohort.records]
  if all(known):
    yield from known
    return
  with (
    threadpool_limits(1, 'blas'),
    concurrent.futures.ThreadPoolExecutor(workers) as pool,
  ):
    futures = [
      None
      if entry
      else pool.submit(_prepare_record, root, cohort, spec, stamps, record)
      for entry, record in zip(known, cohort.records, strict=True)
    ]
    try:
      for entry, future in zip(known, futures, strict=True):
        yield entry or future.result()
    finally:
      pool.shutdown(cancel_futures=True)


def _known(root, cohort: Cohort, digest: str, stamps: Stamps, listed, record: Record):
  """The index entry of a record whose files rest and whose entry is there, or None."""
  fingerprint = stamps.fingerprint(record.source)
  if fingerprint is None:
    return None
  key = _key(digest, fingerprint)
  path = path_of(root, key)
  try:
    if key in listed:
      is_there = os.stat(path).st_size == listed[key]['bytes']
      return _index_entry(cohort, record, key, listed[key]) if is_there else None
    entry = _whole(path)
    return entry and _index_entry(cohort, record, key, _summary(entry))
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _prepare_record(root, cohort: Cohort, spec: Spec, stamps: Stamps, record: Record):
  try:
    cohort.schema.encode(record.attributes)
    before = time.time()
    fingerprint = record.source.fingerprint()
    key = _key(spec.digest(), fingerprint)
    path = path_of(root, key)
    processed = None
    if _whole(path) is None:
      processed = preprocess.apply(spec, *record.source.read())
  except ValueError as error:
    return error
  if processed is not None:
    entries.write(path, processed)  # its OSError is the disk's fault, not the scan's
  stamps.remember(record.source, fingerprint, before)
  entry = entries.open_entry(path)
  return _index_entry(cohort, record, key, _summary(entry))


def _summary(entry: entries.Entry) -> dict[str, Any]:
  """What the index says about an entry: where its array lies, and its slices."""
  start = entry.fields['array'][0]
  return {'bytes': entry.size, 'start': start, 'slices': entry.record['slices']}


def _index_entry(cohort: Cohort, record: Record, key: str, summary: dict):
  codes = cohort.schema.encode(record.attributes)
  return {
    'id': record.id,
    'patient': record.patient,
    'visit': record.visit,
    'phase': record.phase,
    'phase_by': record.phase_by,
    'years': _time(record),
    'key': key,
    'attributes': [None if math.isnan(code) else float(code) for code in codes],
    **{name: summary[name] for name in ('bytes', 'start', 'slices')},
  }


def _time(record: Record) -> float | None:
  """When it was taken, None where that is not known or no number."""
  try:
    time = record.time
  except ValueError:
    return None
  return None if time is None or not math.isfinite(time) else float(time)


def _key(spec_digest: str, fingerprint: str) -> str:
  text = f'{VERSION}:{spec_digest}:{fingerprint}'
  return hashlib.sha256(text.encode()).hexdigest()


def path_of(root: str | os.PathLike, key: str) -> str:
  return os.path.join(root, 'volumes', f'{key}.safetensors')


def _whole(path: str) -> entries.Entry | None:
  try:
    return entries.open_entry(path)
  except (OSError, ValueError):
    return None
