"""A prepared cohort, with random access by entry and by patient.

Arrays come out as float32 (m,d,h,w,1) in [0,1], masks as bool, labels as uint8.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from ldm_jax.data.cohorts import roles
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.readers.grid import spacing_of
from ldm_jax.data.store import entries

NUM_MEASURED = 50  # scans whose headers tell the spacing of a cohort


class Split:
  """The entries of a prepared cohort; len = number of entries (scans).

  Attributes:
    name: of the cohort.
    schema: of the attributes.
    spec: preprocessing config dict the volumes were made with.
    ids, patients, visits, phases, keys: one text per entry.
    years: per entry when it was taken, `cohort.Record.time`, or None.
    attributes: (n,k) float32, encoded, NaN where missing.
    patient_names: one text per patient, in order of appearance.
    patient_entries: per patient the indices of the entries, in that order.
    problems, warnings, slices: as in the index (see `store.prepare`).
  """

  def __init__(self, root: pathlib.Path, index: dict, schema: Schema):
    scans = index['entries']
    self.name, self.schema, self.spec = index['name'], schema, index['spec']
    self.problems, self.warnings = index['problems'], index['warnings']
    self.slices = index['slices']
    self.ids = [entry['id'] for entry in scans]
    self.patients = [entry['patient'] for entry in scans]
    self.visits = [entry['visit'] for entry in scans]
    self.phases = [entry['phase'] for entry in scans]
    # A store of an earlier version has no times.
    self.years = [entry.get('years') for entry in scans]
    self.keys = [entry['key'] for entry in scans]
    self.attributes = np.array(
      [[np.nan if v is None else v for v in e['attributes']] for e in scans],
      np.float32,
    ).reshape(len(scans), len(schema))
    grouped: dict[str, list[int]] = {}
    for number, patient in enumerate(self.patients):
      grouped.setdefault(patient, []).append(number)
    self.patient_names = list(grouped)
    self.patient_entries = [np.asarray(numbers) for numbers in grouped.values()]
    self._root = root
    self._places = [(entry['bytes'], entry['start']) for entry in scans]

  def __len__(self) -> int:
    return len(self.keys)

  @property
  def num_patients(self) -> int:
    """Number of patients."""
    return len(self.patient_names)

  @property
  def shape(self) -> tuple[int, int, int]:
    """(d,h,w) of every volume."""
    return tuple(self.spec['shape'])

  def check_spec(self, learned: dict[str, Any]) -> None:
    """Checks that the volumes were made as those that a model was trained with.

    Args:
      learned: the preprocessing config dict of the model.

    Raises:
      ValueError: they were not; it names what differs.
    """
    # A model of before a key existed was trained with what is its default today.
    learned = {**preprocess.Spec(self.shape).to_config(), **learned}
    if learned != self.spec:
      changed = [k for k, value in self.spec.items() if learned.get(k) != value]
      raise ValueError(
        f'The cohort {self.name!r} was prepared with another data.preprocess than the '
        f'autoencoder was trained with ({", ".join(changed)} differ); expected '
        f'{learned}. Set config.data.preprocess back and run the stage prepare, or '
        'train again: --stages=prepare,autoencoder,...'
      )

  def volumes(self, indices: np.ndarray) -> np.ndarray:
    """(m,) -> (m,d,h,w,1) float32 in [0,1], read from the files.

    Raises:
      ValueError: a file is missing or damaged.
    """
    indices = np.atleast_1d(np.asarray(indices, np.int64))
    found = np.empty((len(indices), *self.shape), np.float32)
    for number, index in enumerate(indices):
      try:
        size, start = self._places[index]
        entries.read_into(self._path(index), size, start, found[number])
      except (OSError, ValueError) as error:
        raise self._damaged(index, error) from error
    return found[..., None]

  def volume(self, index: int) -> np.ndarray:
    """(d,h,w) float32 in [0,1], read-only: memory-mapped, nothing is copied.

    Raises:
      ValueError: the file is missing or damaged.
    """
    try:
      return entries.mapped(self._path(index), *self._places[index], self.shape)
    except (OSError, ValueError) as error:
      raise self._damaged(index, error) from error

  def masks(self, indices: np.ndarray) -> np.ndarray:
    """(m,) -> (m,d,h,w) bool, true inside the scan's field of view."""
    indices = np.atleast_1d(np.asarray(indices, np.int64))
    found = np.empty((len(indices), *self.shape), bool)
    for number, index in enumerate(indices):
      found[number] = preprocess.mask(self.record(index), self.shape)
    return found

  @property
  def is_labelled(self) -> bool:
    """Whether all entries have labels."""
    return all(self._header(i).is_labelled for i in range(len(self)))

  def labels(self, indices: np.ndarray) -> np.ndarray | None:
    """(m,) -> (m,d,h,w) uint8, or None when one of the entries has no labels."""
    indices = np.atleast_1d(np.asarray(indices, np.int64))
    found = np.empty((len(indices), *self.shape), np.uint8)
    for number, index in enumerate(indices):
      if not self._header(index).is_labelled:
        return None
      try:
        found[number] = entries.read_label(self._path(index))
      except (OSError, ValueError) as error:
        raise self._damaged(index, error) from error
    return found

  def record(self, index: int) -> dict[str, Any]:
    """What `preprocess.invert` needs to put entry `index` back on its own grid."""
    return self._header(index).record

  def affine(self, index: int) -> np.ndarray:
    """(4,4), (d,h,w,1) of the processed grid -> world RAS mm."""
    return np.asarray(self.record(index)['affine'], np.float64)

  @property
  def spacing_mm(self) -> np.ndarray:
    """(3,) median voxel size (d,h,w) in mm of the first scans, processed."""
    first = range(min(len(self), NUM_MEASURED))
    return np.median([spacing_of(self.affine(index)) for index in first], axis=0)

  def digest(self) -> str:
    """SHA-256 of the scans' ids, patients, contents and attributes."""
    attributes = hashlib.sha256(self.attributes.tobytes()).hexdigest()
    text = json.dumps([self.ids, self.patients, self.keys, attributes])
    return hashlib.sha256(text.encode()).hexdigest()

  def damaged_file(self) -> pathlib.Path | None:
    """The first file that is gone or not as long as the index says, or None."""
    for index, (size, _) in enumerate(self._places):
      path = pathlib.Path(self._path(index))
      if not path.is_file() or path.stat().st_size != size:
        return path
    return None

  def _header(self, index: int) -> entries.Entry:
    try:
      return entries.read_header(self._path(index))
    except (OSError, ValueError) as error:
      raise self._damaged(index, error) from error

  def _path(self, index: int) -> str:
    return entries.path_of(self._root, self.keys[index])

  def _damaged(self, index: int, error: Exception) -> ValueError:
    # Named by a hash of its content; whose it is, the index in the store says.
    of = '' if self.name in roles.CONFIDENTIAL else f' of {self.ids[index]!r}'
    return ValueError(
      f'The stored volume {self._path(index)}{of} cannot be read '
      f'({error}); expected the file that prepare wrote. Delete it and the folder '
      'checkpoints/prepare beside the store, and run the stage prepare again.'
    )
