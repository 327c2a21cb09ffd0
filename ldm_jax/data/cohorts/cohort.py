"""A cohort: patients -> records -> the source of each record's scan.

Every layout and phantom returns a `Cohort`; nothing later knows how the files are laid
out on disk. The unit of splitting and of privacy is the patient, never the record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ldm_jax.data.cohorts import ids, label_values, roles
from ldm_jax.data.cohorts.attributes import Schema, is_missing
from ldm_jax.data.cohorts.matching import Matching, without_zeros
from ldm_jax.data.readers import nifti, streams
from ldm_jax.data.readers import volume as volumes
from ldm_jax.data.readers.dicom import container


class Source(Protocol):
  """Reads a record's scan."""

  def read(self) -> tuple[volumes.Volume, volumes.Volume | None]:
    """Returns the scan and its labels (or None), on one grid."""

  def fingerprint(self) -> str:
    """Returns a hash of everything that `read` depends on."""


@dataclasses.dataclass(frozen=True)
class FileSource:
  """A scan in a NIfTI file, or as DICOM in a folder or zip.

  Attributes:
    image: path of the scan.
    label: path of its integer labels on the same grid, or None.
    frame: index along the fourth axis of a cine, None for 3D files.
    stack: keep the through-plane axis as d (short-axis stacks) instead of RAS's S.
    codes: (value in the label file, common value) as in `label_values`; () keeps all
      values.
    orientation: which statement of a NIfTI header gives its place, one of
      `nifti.ORIENTATIONS`.
  """

  image: str
  label: str | None = None
  frame: int | None = None
  stack: bool = False
  codes: tuple[tuple[int, int], ...] = ()
  orientation: str = nifti.DEFAULT_ORIENTATION

  def read(self) -> tuple[volumes.Volume, volumes.Volume | None]:
    """Reads scan and labels. Raises ValueError when they do not share a grid."""
    how: Any = {'stack': self.stack, 'orientation': self.orientation}
    scan = volumes.read(self.image, self.frame, **how)
    if self.label is None:
      return scan, None
    label = volumes.read_label(self.label, self.frame, like=scan, **how)
    array = label_values.translate(label.array, self.codes, self.label)
    return scan, dataclasses.replace(label, array=array)

  @property
  def files(self) -> tuple[str, ...]:
    """The files that `fingerprint` hashes; every file of a folder of DICOM.

    While these are unchanged, the fingerprint need not be computed again.
    """
    paths = [path for path in (self.image, self.label) if path is not None]
    return tuple(file for path in paths for file in container.listing(path))

  def fingerprint(self) -> str:
    """Returns the SHA-256 of the files' bytes and of how they are read."""
    how = f'file:{self.frame}:{self.stack}' + (f':{self.codes}' if self.codes else '')
    if self.orientation != nifti.DEFAULT_ORIENTATION:
      how += f':{self.orientation}'
    digest = hashlib.sha256(how.encode())
    for path in (self.image, self.label):
      digest.update(b'|none' if path is None else b'|' + _file_digest(path))
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Record:
  """One scan of one patient.

  Attributes:
    id: unique within the cohort; becomes a file name.
    patient: the unit of splitting and privacy.
    source: where the scan comes from.
    attributes: name -> value as in the table; absent or None means missing.
    visit: label of the visit, '' when there is one.
    phase: 'ED', 'ES', ... or ''.
    years: when it was taken, on a time axis of the patient's own (age, or time since
      the first visit); None where only an attribute named age may tell.
    part: the data set's own split that it belongs to ('train', 'test', ...), or ''.
    phase_by: what chose the frame of the phase ('Info.cfg', 'smallest_pool', ...), or
      '' where a file is the phase.
  """

  id: str
  patient: str
  source: Source
  attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  visit: str = ''
  phase: str = ''
  years: float | None = None
  part: str = ''
  phase_by: str = ''

  @property
  def time(self) -> float | None:
    """`years`, else the attribute called age, in years; None where neither is known."""
    if self.years is not None:
      return self.years
    ages = [v for name, v in self.attributes.items() if name.lower() == 'age']
    return float(ages[0]) if ages and not is_missing(ages[0]) else None


@dataclasses.dataclass(frozen=True)
class Cohort:
  """Named set of records with the schema of their attributes; len = patients.

  Attributes:
    name: 'public', 'private', 'test' or the layout's name.
    schema: attributes every record may carry.
    records: in the layout's order.
    notes: messages of the layout for the user (missing files, ...).
    matching: how the ids of table and scans of the whole data set agree, or None where
      the layout has no such pair.

  Raises:
    ValueError: two records carry one id, or an id cannot be a file name (`ids`).
  """

  name: str
  schema: Schema
  records: tuple[Record, ...]
  notes: tuple[str, ...] = ()
  matching: Matching | None = None

  def __post_init__(self):
    object.__setattr__(self, 'records', tuple(self.records))
    object.__setattr__(self, 'notes', tuple(self.notes))
    seen = {}
    for record in self.records:
      for text in (record.id, record.patient):
        fault = ids.fault(text)
        if fault:
          raise ValueError(
            f'Cohort {self.name!r} holds the record id {record.id!r} of patient '
            f'{record.patient!r}, which {fault}; expected {ids.REQUIRED}, because '
            'samples and store entries are named by it. Change the subject column.'
          )
      if record.id in seen:
        raise ValueError(
          f'Cohort {self.name!r} holds record {record.id!r} twice (patients '
          f'{seen[record.id]!r} and {record.patient!r}); expected one row per scan. '
          'Remove the duplicate row from the table, or name a visit column '
          '(options.visit) that tells the scans apart.'
        )
      seen[record.id] = record.patient

  def __len__(self) -> int:
    return len({record.patient for record in self.records})

  @property
  def patients(self) -> dict[str, list[Record]]:
    """Patient -> that patient's records, both in order of appearance."""
    grouped: dict[str, list[Record]] = {}
    for record in self.records:
      grouped.setdefault(record.patient, []).append(record)
    return grouped

  def published(self, part: str) -> Cohort:
    """The patients of one of the data set's own parts.

    Raises:
      ValueError: the data set has no such part.
    """
    parts = sorted({record.part for record in self.records if record.part})
    if part not in parts:
      raise ValueError(
        f'Cohort {self.name!r} has no part {part!r}; '
        + (f'expected one of {", ".join(parts)}' if parts else 'it has no parts')
        + ". Change data.<cohort>.part; without 'published:' the shares of data.split "
        'are drawn instead.'
      )
    kept = tuple(record for record in self.records if record.part == part)
    return dataclasses.replace(self, records=kept)

  def split(self, fractions: Mapping[str, float], seed: int) -> dict[str, Cohort]:
    """Splits by patient; a patient's part follows from (seed, own id, fractions) alone.

    SHA-256(seed, id) as a number in [0, 1) is compared with the cumulative fractions,
    in the order of their names. So removing or adding a patient changes nobody else's
    part: a cut by rank or by count would move others, and could make a private patient
    public. The price is that the sizes of the parts vary around their fractions, and a
    part may be empty.

    Args:
      fractions: name -> share of the patients, non-negative, summing to 1.
      seed: public salt of the hash; chooses the split.

    Returns:
      name -> Cohort of that name, maybe of no patient; records sorted by (patient,
      visit, phase, id).

    Raises:
      ValueError: fractions that are negative or do not sum to 1.
    """
    shares = np.asarray(list(fractions.values()), np.float64)
    if (
      not shares.size
      or not np.isfinite(shares).all()
      or (shares < 0).any()
      or abs(shares.sum() - 1) > 1e-6
    ):
      raise ValueError(
        f'Expected split fractions that are non-negative and sum to 1, got '
        f'{dict(fractions)}. Change data.split.'
      )
    grouped, names = self.patients, sorted(fractions)
    shares = np.asarray([fractions[name] for name in names], np.float64)
    bounds = np.cumsum(shares)
    # Rounding may leave the last bound below a draw; nobody is in a share of zero.
    last = np.flatnonzero(shares > 0)[-1]
    chosen: dict[str, list[str]] = {name: [] for name in fractions}
    for patient in sorted(grouped):
      place = np.searchsorted(bounds, _draw(seed, patient), side='right')
      chosen[names[min(place, last)]].append(patient)
    cohorts = {}
    for name, patients in chosen.items():
      records = [
        record
        for patient in patients
        for record in sorted(grouped[patient], key=lambda r: (r.visit, r.phase, r.id))
      ]
      cohorts[name] = dataclasses.replace(self, name=name, records=tuple(records))
    return cohorts


def oriented(cohort: Cohort, rule: str) -> Cohort:
  """The cohort with scans that are placed by another rule of `nifti.ORIENTATIONS`."""
  if rule == nifti.DEFAULT_ORIENTATION:
    return cohort
  records = [
    dataclasses.replace(r, source=dataclasses.replace(r.source, orientation=rule))  # type: ignore[type-var]  # those with an orientation are dataclasses
    if hasattr(r.source, 'orientation')
    else r
    for r in cohort.records
  ]
  return dataclasses.replace(cohort, records=tuple(records))


def check_disjoint(cohorts: Mapping[str, Cohort]) -> None:
  """Raises ValueError about patients that are in two of the cohorts.

  It names them, unless they are confidential (`roles.ConfidentialError`). Ids that
  differ by leading zeros alone are one patient's: whose, cannot be told.
  """
  for first, second in itertools.combinations(cohorts, 2):
    one, other = (
      {without_zeros(patient): patient for patient in cohorts[name].patients}
      for name in (first, second)
    )
    shared = sorted(
      one[key] if one[key] == other[key] else f'{one[key]} ({other[key]})'
      for key in one.keys() & other.keys()
    )
    if shared:
      more = f' and {len(shared) - 5} more' if len(shared) > 5 else ''
      rule = (
        f'in both {first!r} and {second!r}; expected every patient in one cohort only, '
        'because training on the public one has no privacy guarantee. Remove them from '
        'one of the tables; where one id means two people, rename those of one table.'
      )
      if any(one[key] != other[key] for key in one.keys() & other.keys()):
        rule += (
          ' Ids that differ by leading zeros alone count as one person: where they are '
          f'two, put a prefix before the ids of one table, such as {second}-007.'
        )
      inside = [name for name in (first, second) if name in roles.CONFIDENTIAL]
      if inside:
        lines = [f'patient {patient} is in {first} and {second}' for patient in shared]
        raise roles.ConfidentialError(f'Some patients are {rule}', {inside[0]: lines})
      raise ValueError(f'Patients {", ".join(shared[:5])}{more} are {rule}')


def _draw(seed: int, patient: str) -> float:
  """A number in [0, 1] that follows from the salt and the patient's id alone."""
  digest = hashlib.sha256(f'{seed}\0{patient}'.encode()).digest()
  return int.from_bytes(digest[:8]) / 2**64


def _file_digest(path: str) -> bytes:
  if container.is_dicom(path):
    return container.digest(path)
  advice = 'Correct the path in the table or options.image.'
  return streams.digest(path, 'a NIfTI file', advice)
