"""M&Ms-2: short-axis or long-axis stacks at ED and ES of 360 patients, all labelled.

  [MnM2/]dataset_information.csv     SUBJECT_CODE, DISEASE, VENDOR, SCANNER, FIELD
  [MnM2/]dataset/001/001_{SA,LA}_{ED,ES}.nii.gz, ..._gt.nii.gz, 001_{SA,LA}_CINE.nii.gz

Patients 1-160 train, 161-200 validation, 201-360 test. Labels 1 LV, 2 myocardium, 3 RV.
The table writes 1 where the folder is called 001.
"""

from __future__ import annotations

import os
from typing import Any

from ldm_jax.data.cohorts import label_values, unreadable
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, Record
from ldm_jax.data.layouts.shared import patient_rows, ventricles
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.tables import table as tables

ABOUT = About(
  title='M&Ms-2: short- and long-axis MRI of the right ventricle',
  homepage='https://www.ub.edu/mnms-2',
  citation="""@article{martinisla2023deep,
  title={Deep Learning Segmentation of the Right Ventricle in Cardiac {MRI}: The
    {M\\&Ms} Challenge},
  author={Martin-Isla, Carlos and Campello, Victor M and Izquierdo, Cristian and
    others},
  journal={IEEE Journal of Biomedical and Health Informatics},
  year={2023},
}""",
  licence='Terms of the challenge; registration required',
  instructions='The folder MnM2 with dataset/ and dataset_information.csv.',
)
# (last patient, part).
PARTS = ((160, 'train'), (200, 'validation'), (360, 'test'))
VIEWS = ('SA', 'LA')
# In words: normal, dilated LV, hypertrophic, arrhythmogenic, tetralogy of Fallot,
# interatrial communication, dilated RV, tricuspid regurgitation.
DISEASES = {
  code.lower(): code for code in ('NOR', 'LV', 'HCM', 'ARR', 'FALL', 'CIA', 'RV', 'TRI')
}
SPELLINGS = {**DISEASES, 'dlv': 'LV', 'drv': 'RV'}
MNMS2_SCHEMA = Schema(
  (
    *ventricles.ATTRIBUTES,
    Attribute('FIELD', low=1, high=3, unit='T'),
    Attribute('PATHOLOGY', 'categorical', categories=tuple(DISEASES.values())),
  )
)


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  view: str = 'SA',
  name: str = 'mnms2',
) -> Cohort:
  """Reads one view of every patient; `published:train`, validation and test.

  Volumes in ml are measured in the view that is read: only those of SA are volumes of
  a whole ventricle.

  Args:
    root: folder MnM2, or the one above it.
    schema: attributes; names other than those of MNMS2_SCHEMA are table columns.
    view: 'SA' short axis, 'LA' long axis (one slice).
    name: of the cohort.

  Raises:
    ValueError: no folder, no table, no scans, another view, a column that is not there.
  """
  root = tables.require_folder(root)
  schema = MNMS2_SCHEMA if schema is None else schema
  if view not in VIEWS:
    raise ValueError(
      f'options.view is {view!r}; expected one of {VIEWS}. Set options.view.'
    )
  base = root / 'MnM2' if (root / 'MnM2').is_dir() else root
  table = tables.read(tables.find(base, 'dataset_information.csv'))
  notes: list[str] = []
  tables.require_attributes(table, schema, MNMS2_SCHEMA.names)
  rows = tables.index_by(table, 'SUBJECT_CODE', 'the patient', notes, _padded)
  folders = {_padded(p.name): p for p in sorted(base.glob('dataset/*')) if p.is_dir()}
  records: list[Record] = []
  for code, folder in folders.items():
    records += _records(folder, code, view, schema, table, rows.get(code, []), notes)
  if not records:
    raise ValueError(
      f'{base} has no dataset/001/001_{view}_ED.nii.gz; expected the M&Ms-2 folder '
      '`MnM2`. Correct root of the data section.'
    )
  shown = {code: folder.name for code, folder in folders.items()}
  matched = patient_rows.match(table, rows, folders, notes, 'a folder', shown)
  return Cohort(name, schema, tuple(records), tuple(notes), matched)


def _records(folder, code, view, schema, table, indices, notes) -> list[Record]:
  number = int(code) if code.isascii() and code.isdigit() else 0
  part = next((part for last, part in PARTS if 0 < number <= last), '')
  try:
    index = patient_rows.only(code, indices, table, notes)
    stem = folder / f'{folder.name}_{view}'
    sources = {
      phase: ventricles.source(f'{stem}_{phase}', label_values.MNMS)
      for phase in ('ED', 'ES')
    }
    known: dict[str, Any] = {'FIELD': None, 'PATHOLOGY': None}
    if index is not None:
      known['FIELD'] = table.number(index, 'FIELD')
      known['PATHOLOGY'] = table.one_of(index, 'DISEASE', SPELLINGS, notes)
    return ventricles.records(
      code, sources, known, schema, notes, part=part, table=table, index=index
    )
  except ValueError as error:
    return [unreadable.record(code, folder, error, part)]


def _padded(code: str) -> str:
  return code.strip().zfill(3)
