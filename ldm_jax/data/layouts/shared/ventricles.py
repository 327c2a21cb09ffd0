"""Volumes of both ventricles from labelled short-axis stacks: labels -> ml.

Data sets of cine MRI publish contours, not volumes. The voxels of the label are counted
(summation of discs), without partial volumes and without a correction at the base.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax.data.cohorts import label_values
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import FileSource, Record
from ldm_jax.data.readers import nifti, volume
from ldm_jax.data.tables import table as tables

ENDINGS = ('.nii.gz', '.nii')
# Names and codes of CARDIAC_SCHEMA; wider limits, for dilated hearts. Clinical limits,
# not measured on a data set.
ATTRIBUTES = (
  Attribute('LVEDV', low=30, high=500, unit='ml'),
  Attribute('LVESV', low=5, high=450, unit='ml'),
  Attribute('LVEF', low=5, high=85, unit='%'),
  Attribute('RVEDV', low=30, high=500, unit='ml'),
  Attribute('RVESV', low=5, high=450, unit='ml'),
  Attribute('RVEF', low=5, high=85, unit='%'),
  Attribute('ESED', 'categorical', categories=(0, 1)),  # 0 end-systole, 1 -diastole
  Attribute('DEPTH', low=4, high=20, unit='slices'),
)


def records(
  patient: str,
  sources: Mapping[str, FileSource],
  known: Mapping[str, Any],
  schema: Schema,
  notes: list[str],
  *,
  part: str = '',
  table: tables.Table | None = None,
  index: int | None = None,
) -> list[Record]:
  """One record per phase of a patient, with what was measured and what is known.

  Args:
    patient: its id.
    sources: 'ED' and 'ES' -> stack.
    known: attributes both share, by name.
    schema: attributes; those neither measured nor known are columns of the table.
    notes: receives what is missing.
    part: of the data set.
    table: of the patients, if there is one.
    index: the patient's row.

  Raises:
    ValueError: an attribute that nobody knows, or a cell that cannot be read.
  """
  problems: list[str] = []
  found = []
  shared = measure(sources, problems) | dict(known)
  for phase, source in sources.items():
    if source.label is None and part != 'unlabeled':
      problems.append(f'no labels at {phase}')
    values = {**shared, 'ESED': int(phase == 'ED'), 'DEPTH': _depth(source)}
    values = tables.attributes(schema, values, table, index)
    found.append(
      Record(f'{patient}_{phase}', patient, source, values, phase=phase, part=part)
    )
  notes += [f'{patient}: {problem}' for problem in problems]
  return found


def source(
  stem: str | os.PathLike,
  codes: tuple[tuple[int, int], ...],
  frame: int | None = None,
  labelled: bool = True,
) -> FileSource:
  """The stack <stem>.nii[.gz] with the labels <stem>_gt.nii[.gz], if there are any.

  Raises:
    ValueError: there is no such stack.
  """
  files = [
    next((f'{s}{end}' for end in ENDINGS if os.path.isfile(f'{s}{end}')), None)
    for s in (stem, f'{stem}_gt')
  ]
  if files[0] is None:
    raise ValueError(
      f'{stem}.nii.gz does not exist; expected the stack of every patient who has a '
      'folder. Copy it again, or remove the folder.'
    )
  return FileSource(
    files[0], files[1] if labelled else None, frame, stack=True, codes=codes
  )


def measure(sources: Mapping[str, FileSource], notes: list[str]) -> dict[str, Any]:
  """Volumes in ml and ejection fractions in % of one patient; None where unknown.

  Args:
    sources: 'ED' and 'ES' -> labelled stack; either may be missing or unlabelled.
    notes: receives a message for labels that cannot be read.
  """
  values: dict[str, Any] = {}
  for phase in ('ED', 'ES'):
    found: dict[str, float] = {}
    source = sources.get(phase)
    if source is not None and source.label is not None:
      try:
        status = os.stat(source.label)
        found = _volumes(source, status.st_size, status.st_mtime_ns)
      except (ValueError, OSError) as error:
        notes.append(f'not measured: {error}')
    for part in ('lv', 'rv'):
      values[f'{part.upper()}{phase}V'] = found.get(part)
  for part in ('LV', 'RV'):
    values[f'{part}EF'] = ejection_fraction(values[f'{part}EDV'], values[f'{part}ESV'])
  return values


def ejection_fraction(edv: float | None, esv: float | None) -> float | None:
  """In %, of the volumes at end-diastole and end-systole; None where one is unknown."""
  return 100 * (edv - esv) / edv if edv and esv is not None else None


def bmi(height_cm: float | None, weight_kg: float | None) -> float | None:
  """kg/m2; None where either is missing or zero, as some tables write it."""
  if not height_cm or not weight_kg:
    return None
  return weight_kg / (height_cm / 100) ** 2


def _depth(source: FileSource) -> int | None:
  """Slices of a stack, or None: `prepare` lists the damaged file."""
  try:
    return nifti.read_header(source.image, stack=source.stack).shape[0]
  except ValueError:
    return None


@functools.lru_cache(maxsize=4096)
def _volumes(source: FileSource, size: int, changed_ns: int) -> dict[str, float]:
  """'lv', 'rv' -> ml. Cached, because every stage lists the cohort again."""
  del size, changed_ns  # part of the key: a file that changed is measured again
  path = str(source.label)
  found = volume.read_label(path, frame=source.frame, stack=source.stack)
  array = label_values.translate(found.array, source.codes, path)
  return {
    part: float(np.sum(array == label_values.HEART[part])) * found.voxel_ml
    for part in ('lv', 'rv')
  }
