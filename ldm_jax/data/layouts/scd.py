"""Sunnybrook Cardiac Data as NIfTI: two short-axis stacks (ED, ES) per patient.

  participants.tsv   PatientID, OriginalID, Sex, Age, Pathology, ED_slices, ED_lv_vox,
                     ES_slices, ES_lv_vox, EF_from_labels, ...
  <OriginalID>/<OriginalID>_{ED,ES}.nii.gz, ..._{ED,ES}_gt.nii.gz   (1 = LV cavity)

Volumes in ml are voxel counts times the voxel size in the file's header. That size is
nominal in this export, so volumes are right up to one factor per patient.
"""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any

import numpy as np

from ldm_jax.data.cohorts import cells, unreadable
from ldm_jax.data.cohorts.attributes import Attribute, Schema, is_missing
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.layouts.shared import patient_rows, ventricles
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
SEXES = {'1': 1, '0': 0, **cells.FEMALE_MALE}


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  table: str = '',
  name: str = 'scd',
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
  people = tables.read(tables.find(root, table))
  tables.require_attributes(people, schema, SCD_SCHEMA.names)
  rows = patient_rows.one_each(people, 'OriginalID', 'the folder of a patient', padded)
  folders = {padded(p.name): p for p in sorted(root.iterdir()) if p.is_dir()}
  records, notes = list[Record](), list[str]()
  for key, index in rows.items():
    if key in folders:
      patient = people.rows[index]['OriginalID']
      records += _records(folders[key], patient, schema, people, index, notes)
  for key, folder in folders.items():
    if key not in rows and _stacks(folder):
      notes.append(f'{folder.name}: without a row in {people.path.name}')
      records += _records(folder, folder.name, schema, people, None, notes)
  if not records:
    raise ValueError(
      f'{root} has no <OriginalID>/<OriginalID>_ED.nii.gz for any row of '
      f'{people.path.name}; expected the layout of the Sunnybrook NIfTI export. '
      'Correct root, or use configs/folder.py.'
    )
  shown = {key: f.name for key, f in folders.items() if key in rows or _stacks(f)}
  matched = patient_rows.match(people, rows, shown, notes, 'a folder', shown)
  return Cohort(name, schema, tuple(records), tuple(notes), matched)


def values_of_row(
  table: tables.Table, index: int | None, patient: str, notes: list[str]
) -> dict[str, Any]:
  """AGE, SEX and PATHOLOGY of a patient; None where unknown.

  Args:
    table: of the patients, of either Sunnybrook release.
    index: the patient's row, or None.
    patient: the id, for messages.
    notes: receives a message for an unknown pathology.

  Raises:
    ValueError: a cell that is no number or known sex.
  """
  if index is None:
    return dict.fromkeys(('AGE', 'SEX', 'PATHOLOGY'))
  row = table.rows[index]
  column = next((c for c in ('Gender', 'Sex') if c in table.columns), 'Sex')
  sex, pathology = row.get(column, '').lower(), row.get('Pathology', '')
  if sex not in SEXES and not is_missing(sex):
    raise ValueError(
      f'{table.where(index, column)}: expected M, F or an empty cell, got '
      f'{row[column]!r}. Correct the table.'
    )
  named = {name.lower(): name for name in PATHOLOGIES}
  known = named.get(' '.join(pathology.lower().split()))
  if known is None and not is_missing(pathology):
    notes.append(f'{patient}: unknown pathology {pathology!r} is taken as missing')
  age = table.number(index, 'Age', 'years')
  return {'AGE': age, 'SEX': SEXES.get(sex), 'PATHOLOGY': known}


def padded(patient: str) -> str:
  """SC-HF-I-1 -> SC-HF-I-01: both spellings are in circulation."""
  return re.sub(r'\d+$', lambda digits: digits.group().zfill(2), patient.strip())


def _records(folder, patient, schema, table, index, notes) -> list[Record]:
  stacks = _stacks(folder)
  notes += [f'{patient}: no {phase} stack' for phase in PHASES if phase not in stacks]
  headers = {phase: _header(image) for phase, (image, _) in stacks.items()}
  records = []
  try:
    known = values_of_row(table, index, patient, notes)
    known |= _volumes(stacks, headers, table, index)
    others = {name: None for name in SCD_SCHEMA.names} | known
    tables.attributes(schema, others, table, index)
  except ValueError as error:
    return [unreadable.record(patient, folder, error)]
  for phase, (image, label) in stacks.items():
    header = headers[phase]
    known['ESED'] = int(phase == 'ED')
    known['DEPTH'] = None if header is None else header.shape[0]
    records.append(
      Record(
        id=f'{patient}_{phase}',
        patient=patient,
        source=FileSource(str(image), str(label) if label else None, stack=True),
        attributes=tables.attributes(schema, known, table, index),
        phase=phase,
      )
    )
  return records


def _volumes(stacks, headers, table, index) -> dict[str, Any]:
  """LVEDV, LVESV and LVEF: from the table, else from the labels."""
  number = lambda column: None if index is None else table.number(index, column)
  voxel_ml = next((h.voxel_ml for h in headers.values() if h), None)
  values = {}
  for phase, key in (('ED', 'LVEDV'), ('ES', 'LVESV')):
    count, header = number(f'{phase}_lv_vox'), headers.get(phase)
    voxel = voxel_ml if header is None else header.voxel_ml
    if count is not None and voxel is not None:
      values[key] = count * voxel
    else:
      values[key] = _measured(stacks.get(phase))
  fraction = number('EF_from_labels')
  if fraction is None:
    fraction = ventricles.ejection_fraction(values['LVEDV'], values['LVESV'])
  return {**values, 'LVEF': fraction}


def _stacks(
  folder: pathlib.Path,
) -> dict[str, tuple[pathlib.Path, pathlib.Path | None]]:
  """Phase -> (image, label or None) of the stacks in a patient's folder."""
  found: dict[str, tuple[pathlib.Path, pathlib.Path | None]] = {}
  for phase in PHASES:
    for ending in ('.nii.gz', '.nii'):
      image = folder / f'{folder.name}_{phase}{ending}'
      label = folder / f'{folder.name}_{phase}_gt{ending}'
      if image.is_file() and phase not in found:
        found[phase] = (image, label if label.is_file() else None)
  return found


def _header(image: pathlib.Path) -> grid.Header | None:
  """Header of a stack, or None: `prepare` will report the damaged file."""
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
