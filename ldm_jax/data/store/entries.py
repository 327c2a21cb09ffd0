"""One preprocessed scan as a safetensors file: its name, making it, reading it.

  array   (d,h,w) float32 in [0,1]
  label   (d,h,w) uint8, where the scan has labels
  metadata: 'record', the JSON that `preprocess.invert` needs

An entry is named by the SHA-256 of the scan's fingerprint, the preprocessing and
VERSION: a changed input is another entry, and two processes that make the same entry
write the same bytes.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from threadpoolctl import threadpool_limits

from ldm_jax import atomic
from ldm_jax.data.cohorts.cohort import Cohort, Record
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.preprocessing.preprocess import Processed, Spec
from ldm_jax.data.store.fingerprints import Fingerprints

VERSION = 3  # of what an entry holds for the same scan and spec
# Fields of a scan's record that the index repeats.
OF_RECORD = ('slices', 'filled', 'remarks', 'labels')
TYPES = {'array': 'F32', 'label': 'U8'}


@dataclasses.dataclass(frozen=True)
class Entry:
  """What the header of an entry's file says.

  Attributes:
    size: of the file in bytes.
    start: offset of the array in bytes.
    is_labelled: whether the scan has labels.
    record: what `preprocess.invert` needs.
  """

  size: int
  start: int
  is_labelled: bool
  record: dict[str, Any]


def key(spec: Spec, fingerprint: str) -> str:
  """Name of the entry of a scan with this fingerprint."""
  return hashlib.sha256(f'{VERSION}:{spec.digest()}:{fingerprint}'.encode()).hexdigest()


def path_of(root: str | os.PathLike, key: str) -> str:
  """Path of an entry in the store at `root`."""
  return os.path.join(root, 'volumes', f'{key}.safetensors')


def write(path: str | os.PathLike, processed: Processed) -> None:
  """Writes a scan, whole or not at all; equal scans give equal bytes."""
  tensors = {'array': np.ascontiguousarray(processed.array, np.float32)}
  if processed.label is not None:
    tensors['label'] = np.ascontiguousarray(processed.label, np.uint8)
  # One item: the library writes several in any order.
  metadata = {'record': json.dumps(processed.record)}
  atomic.write_bytes(path, save(tensors, metadata))


def read_header(path: str | os.PathLike) -> Entry:
  """Reads the header of an entry and checks that the file is as long as it says.

  Raises:
    ValueError: the file is cut, or `write` did not write it.
    OSError: there is no such file.
  """
  try:
    with safe_open(path, 'numpy') as file:
      types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (no mapping)
      record = json.loads(file.metadata()['record'])
    if types not in (TYPES, {'array': 'F32'}):
      raise ValueError(f'it holds {types}, expected {TYPES}')
  except (SafetensorError, KeyError, TypeError) as error:
    raise ValueError(f'no header of a stored scan ({error!r})') from error
  with open(path, 'rb') as file:
    # Eight bytes of length, the header, then the arrays, the widest type first.
    start = 8 + int.from_bytes(file.read(8), 'little')
  return Entry(os.path.getsize(path), start, 'label' in types, record)


def read_label(path: str | os.PathLike) -> np.ndarray:
  """(d,h,w) uint8. Raises ValueError or OSError as `read_header`."""
  try:
    with safe_open(path, 'numpy') as file:
      return file.get_tensor('label')
  except SafetensorError as error:
    raise ValueError(f'no labels of a stored scan ({error!r})') from error


def read_into(path: str, size: int, start: int, out: np.ndarray) -> None:
  """Fills a C-contiguous float32 array with a file's bytes from `start` on.

  Training reads every volume this way: the library would copy once more.

  Raises:
    ValueError: the file is not `size` bytes long.
    OSError: the file is gone.
  """
  with open(path, 'rb') as file:
    _check_size(file.fileno(), size)
    file.seek(start)
    count = file.readinto(out.reshape(-1).data.cast('B'))
    if count != out.nbytes:
      raise ValueError(f'{out.nbytes - count} bytes are missing')


def mapped(path: str, size: int, start: int, shape: tuple[int, ...]) -> np.ndarray:
  """The float32 array of a file, read-only and not copied.

  Raises:
    ValueError: the file is not `size` bytes long.
    OSError: the file is gone.
  """
  with open(path, 'rb') as file:
    _check_size(file.fileno(), size)
    return np.asarray(np.memmap(file, '<f4', 'r', start, shape))


def make(
  root: str | os.PathLike,
  cohort: Cohort,
  spec: Spec,
  known: Fingerprints,
  listed: Mapping[str, dict],
  workers: int,
) -> Generator[dict[str, Any] | ValueError, None, None]:
  """Makes the entries of a cohort that are not stored yet, in parallel.

  Threads, not processes: reading, unpacking, hashing and resampling release Python's
  lock. What they call must not start threads of its own, which would compete for the
  cores.

  Args:
    root: of the store.
    cohort: whose scans are read.
    spec: how volumes become arrays.
    known: fingerprints of unchanged files.
    listed: key -> entry of the index that was written last time. A file of the size
      that it states is not opened again.
    workers: threads.

  Yields:
    Per record its entry in the index, or the ValueError that says what is wrong.
  """
  stored = [_stored(root, cohort, spec, known, listed, r) for r in cohort.records]
  if all(stored):
    yield from stored
    return
  with (
    threadpool_limits(1, 'blas'),
    concurrent.futures.ThreadPoolExecutor(workers) as pool,
  ):
    results = [
      entry or pool.submit(_make_one, root, cohort, spec, known, record)
      for entry, record in zip(stored, cohort.records, strict=True)
    ]
    try:
      for found in results:
        yield found if isinstance(found, dict) else found.result()
    finally:
      pool.shutdown(cancel_futures=True)


def _stored(root, cohort: Cohort, spec: Spec, known, listed, record: Record):
  """The index entry of a record whose files are unchanged and whose entry is there."""
  fingerprint = known.of(record.source)
  if fingerprint is None:
    return None
  name = key(spec, fingerprint)
  path = path_of(root, name)
  try:
    if name not in listed:
      return _index_entry(cohort, record, name, _summary(read_header(path)))
    if os.path.getsize(path) == listed[name]['bytes']:
      return _index_entry(cohort, record, name, listed[name])
  except (OSError, ValueError, KeyError, TypeError):
    pass
  return None


def _make_one(root, cohort: Cohort, spec: Spec, known: Fingerprints, record: Record):
  try:
    cohort.schema.encode(record.attributes)
    before = time.time()
    fingerprint = record.source.fingerprint()
    name = key(spec, fingerprint)
    path = path_of(root, name)
    processed = None
    if not _is_whole(path):
      processed = preprocess.apply(spec, *record.source.read())
  except ValueError as error:
    return error
  if processed is not None:
    write(path, processed)  # its OSError is the disk's fault, not the scan's
  known.remember(record.source, fingerprint, before)
  return _index_entry(cohort, record, name, _summary(read_header(path)))


def _summary(entry: Entry) -> dict[str, Any]:
  """What the index says about an entry: where its array lies, and what was found."""
  record = {field: entry.record[field] for field in OF_RECORD}
  return {'bytes': entry.size, 'start': entry.start, **record}


def _index_entry(cohort: Cohort, record: Record, name: str, summary: dict):
  codes = cohort.schema.encode(record.attributes)
  return {
    'id': record.id,
    'patient': record.patient,
    'visit': record.visit,
    'phase': record.phase,
    'phase_by': record.phase_by,
    'years': _time(record),
    'key': name,
    'attributes': [None if math.isnan(code) else float(code) for code in codes],
    **{field: summary[field] for field in ('bytes', 'start', *OF_RECORD)},
  }


def _time(record: Record) -> float | None:
  """When the scan was taken, None where that is not known or no number."""
  try:
    when = record.time
  except ValueError:
    return None
  return None if when is None or not math.isfinite(when) else float(when)


def _is_whole(path: str) -> bool:
  try:
    read_header(path)
  except (OSError, ValueError):
    return False
  return True


def _check_size(handle: int, size: int) -> None:
  found = os.fstat(handle).st_size
  if found != size:
    raise ValueError(f'{found} bytes instead of {size}')
