"""Sunnybrook Cardiac Data as NIfTI: two short-axis stacks (ED, ES) per patient.

  participants.tsv   PatientID, OriginalID, Sex, Age, Pathology, ED_slices, ED_lv_vox,
                     ES_slices, ES_lv_vox, EF_from_labels, ...
  <OriginalID>/<OriginalID>_{ED,ES}.nii.gz, ..._{ED,ES}_gt.nii.gz   (1 = LV cavity)

Volumes in ml are voxel counts times the voxel of the file's header, whose spacing is
nominal in this export: right up to a factor per patient.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np

from ldm_jax.data.cohorts import matching
from ldm_jax.data.cohorts.attributes import Attribute, Schema, is_missing
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.readers import grid, nifti, volume
from ldm_jax.data.tables import table as tables

ABOUT = About(
  title='Sunnybrook Cardiac Data: short-axis stacks at end-diastole and end-systole',
  homepage='https://www.cardiacatlas.org/sunnybrook-cardiac-data/',
  citation="""@article{radau2009evaluation,
  title={Evaluation framework for algorithms segmenting short axis cardiac {MRI}},
  author={Radau, Perry and Lu, Yingli and Connelly, Kim and Paul, Gideon and
    Dick, Alexander J and Wright, Graham A},
  journal={The MIDAS Journal},
  year={2009},
}""",
  licence='CC0 1.0 (public domain)',
  instructions='The folder with participants.tsv and <OriginalID>/*_{ED,ES}.nii.gz.',
)
PHASES = ('ED', 'ES')
PATHOLOGIES = (
  'Normal',
  'Hypertrophy',
  'Heart failure with infarct',
  'Heart failure without infarct',
)
# Names and codes as in CARDIAC_SCHEMA; wider volumes for the nominal voxel size.
SCD_SCHEMA = Schema(
  (
    Attribute('LVEDV', low=30, high=500, unit='ml'),
    Attribute('LVESV', low=5, high=450, unit='ml'),
    Attribute('LVEF', low=5, high=85, unit='%'),
    Attribute('AGE', low=18, high=95, unit='years'),
    Attribute('SEX', 'categorical', categories=(0, 1)),  # 0 female, 1 male
    Attribute('ESED', 'categorical', categories=(0, 1)),  # 0 end-systole, 1 -diastole
    Attribute('DEPTH', low=4, high=16, unit='slices'),
    Attribute('PATHOLOGY', 'categorical', categories=PATHOLOGIES),
  )
)
SEXES = {'m': 1, 'male': 1, '1': 1, 'f': 0, 'female': 0, '0': 0}


def read(
  root: str, schema: Schema | None = None, table: str = '', name: str = 'scd'
) -> Cohort:
  """Reads all patients with at least one stack; a missing stack becomes a note.

  Args:
    root: folder of the data set.
    schema: attributes; names other than those of SCD_SCHEMA are table columns.
    table: its file name; participants.tsv when there is one.
    name: of the cohort.

  Raises:
    ValueError: no folder, no table, no stacks, a repeated patient, a cell that is no
      number or known value.
  """
  root = tables.require_folder(root)
  schema = SCD_SCHEMA if schema is None else schema
  table = tables.read(tables.find(root, table))
  column = table.require('OriginalID', 'the folder of a patient', 'the table')
  folders = {_padded(p.name): p for p in sorted(root.iterdir()) if p.is_dir()}
  records, notes, seen = [], [], {}
  for index, row in enumerate(table.rows):
    patient = row[column]
    if is_missing(patient) or _padded(patient) in seen:
      raise ValueError(
        f'{table.where(index, column)}: patient {patient!r} '
        + ('has no id' if is_missing(patient) else 'stands twice')
        + '; required is one row per patient. Correct the table.'
      )
    seen[_padded(patient)] = index
    folder = folders.get(_padded(patient))
    if folder is None:
      notes.append(f'{patient}: in the table but without a folder')
      continue
    records += _records(folder, patient, schema, table, index, notes)
  for padded, folder in folders.items():
    if padded not in seen and _stacks(folder):
      notes.append(f'{folder.name}: without a row in {table.path.name}')
      records += _records(folder, folder.name, schema, table, None, notes)
  if not records:
    raise ValueError(
      f'{root} has no <OriginalID>/<OriginalID>_ED.nii.gz for any row of '
      f'{table.path.name}; required is the layout of the Sunnybrook NIfTI export. '
      'Correct root, or use configs/folder.py.'
    )
  there = {p: f.name for p, f in folders.items() if p in seen or _stacks(f)}
  matched = matching.compare(seen, there, table.path.name, there)
  return Cohort(name, schema, tuple(records), tuple(notes), matched)


def _records(folder, patient, schema, table, index, notes) -> list[Record]:
  stacks = _stacks(folder)
  notes += [f'{patient}: no {phase} stack' for phase in PHASES if phase not in stacks]
  shared = _patient_values(stacks, table, index, notes, patient)
  records = []
  for phase, (image, label) in stacks.items():
    header = _header(image)
    values = dict(shared, ESED=int(phase == 'ED'))
    values['DEPTH'] = None if header is None else header.shape[0]
    for attribute in schema:
      if attribute.name not in SCD_SCHEMA.names:
        values[attribute.name] = (
          None if index is None else table.attribute(index, attribute)
        )
    records.append(
      Record(
        id=f'{patient}_{phase}',
        patient=patient,
        source=FileSource(str(image), label and str(label), stack=True),
        attributes={key: values[key] for key in schema.names},
        phase=phase,
      )
    )
  return records


def _patient_values(stacks, table, index, notes, patient) -> dict[str, Any]:
  """The attributes that both stacks of a patient share."""

  def number(column):
    if index is None or column not in table.columns:
      return None
    return table.attribute(index, Attribute(column, low=0, high=1))

  values = {'AGE': number('Age'), 'SEX': None, 'PATHOLOGY': None}
  voxel_ml = next(
    (h.voxel_ml for h in (_header(image) for image, _ in stacks.values()) if h), None
  )
  for phase, key in (('ED', 'LVEDV'), ('ES', 'LVESV')):
    count = number(f'{phase}_lv_vox')
    header = _header(stacks[phase][0]) if phase in stacks else None
    voxel = voxel_ml if header is None else header.voxel_ml
    if count is not None and voxel is not None:
      values[key] = count * voxel
    else:
      values[key] = _measured(stacks.get(phase))
  values['LVEF'] = number('EF_from_labels')
  if values['LVEF'] is None and values['LVEDV'] and values['LVESV'] is not None:
    values['LVEF'] = 100 * (values['LVEDV'] - values['LVESV']) / values['LVEDV']
  row = {} if index is None else table.rows[index]
  sex, pathology = row.get('Sex', ''), row.get('Pathology', '')
  if not is_missing(sex):
    if sex.lower() not in SEXES:
      raise ValueError(
        f'{table.where(index, "Sex")}: the value is {sex!r}; required is M, F or an '
        'empty cell. Correct the table.'
      )
    values['SEX'] = SEXES[sex.lower()]
  if not is_missing(pathology):
    known = {name.lower(): name for name in PATHOLOGIES}
    values['PATHOLOGY'] = known.get(' '.join(pathology.lower().split()))
    if values['PATHOLOGY'] is None:
      notes.append(f'{patient}: unknown pathology {pathology!r} is taken as missing')
  return values


def _stacks(
  folder: pathlib.Path,
) -> dict[str, tuple[pathlib.Path, pathlib.Path | None]]:
  """Phase -> (image, label or None) of the stacks in a patient's folder."""
  found = {}
  for phase in PHASES:
    for ending in ('.nii.gz', '.nii'):
      image = folder / f'{folder.name}_{phase}{ending}'
      label = folder / f'{folder.name}_{phase}_gt{ending}'
      if image.is_file() and phase not in found:
        found[phase] = (image, label if label.is_file() else None)
  return found


def _header(image: pathlib.Path) -> grid.Header | None:
  """Header of a stack, or None: `prepare` will list the damaged file."""
  try:
    return nifti.read_header(image, stack=True)
  except ValueError:
    return None


def _measured(stack) -> float | None:
  """Cavity volume in ml from the labels of a stack, if it has readable ones."""
  if stack is None or stack[1] is None:
    return None
  try:
    label = volume.read_label(stack[1], stack=True)
  except ValueError:
    return None
  return float(np.sum(label.array == 1)) * label.voxel_ml


def _padded(patient: str) -> str:
  """SC-HF-I-1 -> SC-HF-I-01: both spellings are in circulation."""
  return re.sub(r'\d+$', lambda digits: digits.group().zfill(2), patient.strip())
