"""Inspects a cohort before anything is trained: its contents, and what is unusual.

Reads every scan once, on its own grid; nothing is written. The findings describe
patients, so those of a private cohort are internal.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import nibabel as nib
import numpy as np

from ldm_jax.data.cohorts import matching
from ldm_jax.data.cohorts.cohort import Cohort, Record
from ldm_jax.data.inspection import (
  attribute_summary,
  grid_fit,
  near_duplicates,
  thumbnail,
)
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.readers.grid import Grid
from ldm_jax.data.readers.volume import Volume
from ldm_jax.data.store import remarks

# A scan is odd if its brightness is more than so many robust standard deviations from
# the cohort's median, or its voxels are so many times larger or smaller.
ODD_DEVIATIONS, ODD_FACTOR = 8.0, 2.0
SMALL_GROUP = 5  # patients; a group with fewer is too small to learn from
LISTS = (
  'unmatched',
  'bare',
  'coarse',
  'unreadable',
  'duplicates',
  'near_duplicates',
  'odd',
  'out_of_range',
  'small_groups',
  'cut_off',
  'remarks',
  'unlisted_labels',
  'notes',
)


@dataclasses.dataclass
class Look:
  """Results for one cohort; entry i of each list belongs to the i-th readable scan.

  Attributes:
    findings: JSON-able dict: 'counts', 'shapes', 'spacings_mm', 'orientations',
      'intensities', 'attributes', 'groups', and lists of messages under `LISTS`.
    ids, patients, fingerprints: of the scans.
    signatures: (k,) each, see `near_duplicates`.
    thumbnails: (96,96) uint8 each, the middle slice.
    geometries: `grid_fit.Geometry` each.
    seconds: mean time to read a scan.
    voxels: number of voxels of the largest scan.
  """

  findings: dict[str, Any] = dataclasses.field(default_factory=dict)
  ids: list[str] = dataclasses.field(default_factory=list)
  patients: list[str] = dataclasses.field(default_factory=list)
  fingerprints: list[str] = dataclasses.field(default_factory=list)
  signatures: list[np.ndarray] = dataclasses.field(default_factory=list)
  thumbnails: list[np.ndarray] = dataclasses.field(default_factory=list)
  geometries: list[grid_fit.Geometry] = dataclasses.field(default_factory=list)
  seconds: float = 0.0
  voxels: int = 0


def inspect(
  cohort: Cohort,
  max_records: int | None = None,
  spec: Spec | None = None,
  progress: Callable[[int], None] = lambda done: None,
  classes: Sequence[int] | None = None,
  explain: Callable[[str], str] = str,
) -> Look:
  """Collects shapes, spacings, orientations, intensities, attributes and faults.

  Args:
    cohort: the scans.
    max_records: reads only so many scans, evenly chosen; attributes are all read.
    spec: preprocessing that is planned, to find what it would cut off.
    progress: called with the number of scans read.
    classes: label values that the measuring network learns; others are told.
    explain: turns the reason why a scan cannot be read into one that names flags.
  """
  records = list(cohort.records)
  if max_records is not None and len(records) > max_records:
    chosen = np.linspace(0, len(records) - 1, max_records).round().astype(int)
    records = [records[number] for number in chosen]
  look, rows = Look(), list[dict[str, Any]]()
  unreadable, cut_off = list[str](), list[str]()
  read: list[remarks.Scan] = []
  start = time.monotonic()
  for done, record in enumerate(records):
    try:
      fingerprint = record.source.fingerprint()
      scan, label = record.source.read()
    except ValueError as error:
      unreadable.append(f'{record.id}: {explain(str(error))}')
    else:
      _keep(look, record, scan, fingerprint)
      rows.append(_row(record, scan, label))
      look.geometries.append(grid_fit.measure(scan, label, spec))
      lost = [] if spec is None else grid_fit.cut_off(spec, look.geometries[-1])
      cut_off += [f'{record.id}: {message}' for message in lost]
      read.append(_decided(record, scan, label, spec, look.geometries[-1]))
    progress(done + 1)
  look.seconds = (time.monotonic() - start) / max(1, len(rows))
  look.findings = {
    'counts': {
      'name': cohort.name,
      'patients': len(cohort),
      'records': len(cohort.records),
      'inspected': len(records),
      'with_labels': sum(row['label'] for row in rows),
    },
    'shapes': _counted(row['shape'] for row in rows),
    'spacings_mm': _counted(row['spacing_text'] for row in rows),
    'orientations': _counted(row['orientation'] for row in rows),
    'intensities': {
      'lowest': _range([row['lowest'] for row in rows]),
      'highest': _range([row['highest'] for row in rows]),
    },
    'attributes': {
      a.name: attribute_summary.of_attribute(cohort, a) for a in cohort.schema
    },
    'groups': attribute_summary.groups(cohort),
    'unreadable': unreadable,
    'duplicates': _duplicates(look),
    'near_duplicates': _near(look),
    'odd': _odd(rows),
    'out_of_range': [
      f'{record.id}: {message}'
      for record in cohort.records
      for message in cohort.schema.out_of_range(record.attributes)
    ],
    'unmatched': attribute_summary.unmatched(cohort),
    'bare': attribute_summary.without_values(cohort),
    'coarse': [] if spec is None else grid_fit.poor(spec, look.geometries),
    'cut_off': cut_off,
    'remarks': remarks.lines(read),
    'unlisted_labels': []
    if classes is None
    else remarks.unlisted_labels(read, classes),
    'notes': list(cohort.notes),
  }
  look.findings['small_groups'] = [
    f'{name} = {value}: {count} patients'
    for name, counts in look.findings['groups'].items()
    for value, count in counts.items()
    if count < SMALL_GROUP
  ]
  return look


def shared(looks: Mapping[str, Look]) -> list[str]:
  """Messages about patients in two cohorts, by their ids or by their scans."""
  names = list(looks)
  where = [name for name in names for _ in looks[name].ids]
  ids = [i for name in names for i in looks[name].ids]
  messages = []
  first: dict[str, str] = {}
  for name in names:
    for patient in dict.fromkeys(looks[name].patients):
      other = first.setdefault(matching.without_zeros(patient), name)
      if other != name:
        messages.append(f'patient {patient} is in {other} and in {name}')
  prints = [p for name in names for p in looks[name].fingerprints]
  seen: dict[str, int] = {}
  for number, fingerprint in enumerate(prints):
    same = seen.setdefault(fingerprint, number)
    if where[same] != where[number]:
      messages.append(
        f'{ids[number]} of {where[number]} is the same file as {ids[same]} of '
        f'{where[same]}'
      )
  signatures = [s for name in names for s in looks[name].signatures]
  if signatures:
    for i, j, found in near_duplicates.near_pairs(signatures, ids, prints):
      if where[i] != where[j]:
        messages.append(
          f'{ids[j]} of {where[j]} looks like {ids[i]} of {where[i]} '
          f'(correlation {found:.3f})'
        )
  return messages


def _decided(record, scan, label, spec, geometry) -> remarks.Scan:
  return remarks.Scan(
    os.path.basename(getattr(record.source, 'image', '').partition('#')[0])
    or record.id,
    record.patient,
    scan.remarks,
    1.0 if spec is None else grid_fit.filled(spec, geometry),
    {} if label is None else preprocess.counted(label.array),
  )


def _keep(look: Look, record: Record, scan: Volume, fingerprint: str) -> None:
  look.ids.append(record.id)
  look.patients.append(record.patient)
  look.fingerprints.append(fingerprint)
  look.signatures.append(near_duplicates.signature(scan.array))
  look.thumbnails.append(thumbnail.draw(scan))
  look.voxels = max(look.voxels, scan.array.size)


def _row(record: Record, scan: Volume, label: Volume | None) -> dict[str, Any]:
  low, middle, high = np.percentile(scan.array, (1, 50, 99))
  return {
    'id': record.id,
    'shape': 'x'.join(map(str, scan.array.shape)),
    'spacing': scan.spacing,
    'spacing_text': ' x '.join(f'{mm:.2f}' for mm in scan.spacing),
    'orientation': ''.join(nib.aff2axcodes(cast(Grid, scan.source).affine)),
    'lowest': float(scan.array.min()),
    'highest': float(scan.array.max()),
    'brightness': (low, middle, high),
    'label': label is not None,
  }


def _duplicates(look: Look) -> list[str]:
  seen, messages = dict[str, str](), []
  for record, fingerprint in zip(look.ids, look.fingerprints, strict=True):
    first = seen.setdefault(fingerprint, record)
    if first != record:
      messages.append(f'{record}: the same file as {first}')
  return messages


def _near(look: Look) -> list[str]:
  if not look.signatures:
    return []
  pairs = near_duplicates.near_pairs(look.signatures, look.patients, look.fingerprints)
  return [
    f'{look.ids[j]}: looks like {look.ids[i]} (correlation {found:.3f})'
    for i, j, found in pairs
  ]


def _odd(rows: list[dict[str, Any]]) -> list[str]:
  """Scans unlike the rest of their cohort in brightness or voxel size."""
  if len(rows) < near_duplicates.FEW:
    return []
  messages = []
  bright = np.array([row['brightness'] for row in rows], np.float64)
  usual = np.median(bright, 0)
  spread = 1.4826 * np.median(np.abs(bright - usual), 0)
  spread = np.maximum(spread, 0.02 * (usual[2] - usual[0]) + 1e-12)
  away = np.abs(bright - usual) / spread
  sizes = np.array([row['spacing'] for row in rows])
  usual_size = np.median(sizes, 0)
  for row, distance, values, size in zip(rows, away, bright, sizes, strict=True):
    if distance.max() > ODD_DEVIATIONS:
      worst = int(distance.argmax())
      messages.append(
        f'{row["id"]}: percentile {(1, 50, 99)[worst]} of its intensities is '
        f'{values[worst]:g}, usual is {usual[worst]:g} '
        f'({distance[worst]:.0f} robust deviations)'
      )
    if np.abs(np.log(size / usual_size)).max() > np.log(ODD_FACTOR):
      shown = ' x '.join(f'{mm:.2f}' for mm in usual_size)
      messages.append(
        f'{row["id"]}: voxels of {row["spacing_text"]} mm, usual are {shown} mm'
      )
  return messages


def _counted(values) -> dict[str, int]:
  return dict(Counter(values).most_common())


def _range(values: list[float]) -> list[float]:
  return [min(values), max(values)] if values else []
