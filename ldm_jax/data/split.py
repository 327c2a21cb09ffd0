"""A prepared cohort, with random access by entry and by patient.

Arrays come out as float32 (m,d,h,w,1) in [0,1], masks as bool, labels as uint8.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import zipfile
from typing import Any

import numpy as np

from ldm_jax.data.attributes import Schema


class Split:
  """The entries of a prepared cohort; len = number of entries (scans).

  Attributes:
    name: of the cohort.
    schema: of the attributes.
    spec: preprocessing config dict the volumes were made with.
    ids, patients, visits, phases, keys: one text per entry.
    attributes: (n,k) float32, encoded, NaN where missing.
    patient_names: one text per patient, in order of appearance.
    patient_entries: per patient the indices of the entries, in that order.
  """

  def __init__(
    self, root: pathlib.Path, index: dict, schema: Schema, cache_bytes: int = 2**31
  ):
    entries = index['entries']
    self.name, self.schema, self.spec = index['name'], schema, index['spec']
    self.problems, self.warnings = index['problems'], index['warnings']
    self.ids = [entry['id'] for entry in entries]
    self.patients = [entry['patient'] for entry in entries]
    self.visits = [entry['visit'] for entry in entries]
    self.phases = [entry['phase'] for entry in entries]
    self.keys = [entry['key'] for entry in entries]
    self.attributes = np.array(
      [[np.nan if v is None else v for v in e['attributes']] for e in entries],
      np.float32,
    ).reshape(len(entries), len(schema))
    grouped = {}
    for number, patient in enumerate(self.patients):
      grouped.setdefault(patient, []).append(number)
    self.patient_names = list(grouped)
    self.patient_entries = [np.asarray(numbers) for numbers in grouped.values()]
    self._root, self._cache, self._room = root, {}, cache_bytes

  def __len__(self) -> int:
    return len(self.keys)

  @property
  def num_patients(self) -> int:
    return len(self.patient_names)

  @property
  def shape(self) -> tuple[int, int, int]:
    """(d,h,w) of every volume."""
    return tuple(self.spec['shape'])

  def volumes(self, indices: np.ndarray) -> np.ndarray:
    """(m,) -> (m,d,h,w,1) float32 in [0,1]."""
    return self._stack('array', indices, np.float32)[..., None]

  def masks(self, indices: np.ndarray) -> np.ndarray:
    """(m,) -> (m,d,h,w) bool, true where the scan reaches."""
    return self._stack('mask', indices, bool)

  def labels(self, indices: np.ndarray) -> np.ndarray | None:
    """(m,) -> (m,d,h,w) uint8, or None when one of the entries has no labels."""
    return self._stack('label', indices, np.uint8)

  def record(self, index: int) -> dict[str, Any]:
    """What `preprocess.invert` needs to put entry `index` back on its own grid."""
    return json.loads(self._entry(index)['record'].tobytes())

  def affine(self, index: int) -> np.ndarray:
    """(4,4), (d,h,w,1) of the processed grid -> world RAS mm."""
    return np.asarray(self.record(index)['affine'], np.float64)

  def digest(self) -> str:
    """SHA-256 of which scans these are, whose, and their attributes."""
    attributes = hashlib.sha256(self.attributes.tobytes()).hexdigest()
    text = json.dumps([self.ids, self.patients, self.keys, attributes])
    return hashlib.sha256(text.encode()).hexdigest()

  def _stack(self, field: str, indices: np.ndarray, dtype) -> np.ndarray | None:
    indices = np.atleast_1d(np.asarray(indices, np.int64))
    found = np.empty((len(indices), *self.shape), dtype)
    for number, index in enumerate(indices):
      entry = self._entry(index)
      if field not in entry:
        return None
      found[number] = entry[field]
    return found

  def _entry(self, index: int) -> dict[str, np.ndarray]:
    key = self.keys[index]
    if key in self._cache:
      return self._cache[key]
    path = self._root / 'volumes' / f'{key}.npz'
    try:
      with np.load(path) as file:
        entry = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
      raise ValueError(
        f'The stored volume {path} of {self.ids[index]!r} cannot be read ({error}); '
        'required is the file that prepare wrote. Delete it and the index '
        f'{self.name}.json, and run the stage prepare again.'
      ) from error
    size = sum(array.nbytes for array in entry.values())
    if size <= self._room:
      self._room -= size
      self._cache[key] = entry
    return entry
