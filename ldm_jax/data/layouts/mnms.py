"""M&Ms: short-axis cine of six centres and four vendors, ED and ES labelled.

  [OpenDataset/]211230_M&Ms_Dataset_information_diagnosis_opendataset.csv
  [OpenDataset/]{Training/{Labeled,Unlabeled},Validation,Testing}/<code>/
    <code>_sa.nii.gz, <code>_sa_gt.nii.gz     4D; only ED and ES carry labels

ED and ES count frames from 0. Files `_gt` under Unlabeled are not labels. Labels 1 LV,
2 myocardium, 3 RV.
"""

from __future__ import annotations

import os
import pathlib
import re

from ldm_jax.data.cohorts import cells, label_values, unreadable
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.layouts.shared import patient_rows, ventricles
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.tables import table as tables

ABOUT = About(
  title='M&Ms: short-axis cine MRI of several centres, vendors and diseases',
  homepage='https://www.ub.edu/mnms',
  citation="""@article{campello2021multi,
  title={Multi-Centre, Multi-Vendor and Multi-Disease Cardiac Segmentation: The
    {M\\&Ms} Challenge},
  author={Campello, Victor M and Gkontra, Polyxeni and Izquierdo, Cristian and others},
  journal={IEEE Transactions on Medical Imaging},
  year={2021},
}""",
  licence='Terms of the challenge; registration required',
  instructions='The folder OpenDataset with Training/, Validation/, Testing/.',
)
PARTS = {
  'Training/Labeled': 'train',
  'Training/Unlabeled': 'unlabeled',
  'Validation': 'validation',
  'Testing': 'test',
}
VENDORS = {vendor.lower(): vendor for vendor in 'ABCD'}
PATHOLOGIES = {
  code.lower(): code
  for code in ('NOR', 'DCM', 'HCM', 'HHD', 'ARV', 'AHS', 'IHD', 'LVNC')
}
MNMS_SCHEMA = Schema(
  (
    *ventricles.ATTRIBUTES,
    Attribute('AGE', low=18, high=95, unit='years'),
    Attribute('SEX', 'categorical', categories=(0, 1)),  # 0 female, 1 male
    Attribute('BMI', low=14, high=50, unit='kg/m2'),
    Attribute('VENDOR', 'categorical', categories=tuple(VENDORS.values())),
    Attribute('PATHOLOGY', 'categorical', categories=tuple(PATHOLOGIES.values())),
  )
)


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  table: str = '',
  name: str = 'mnms',
) -> Cohort:
  """Reads the parts that exist: `published:train`, unlabeled, validation, test.

  Args:
    root: folder OpenDataset, or the one above it.
    schema: attributes; names other than those of MNMS_SCHEMA are table columns.
    table: file name of the table, where it was renamed.
    name: of the cohort.

  Raises:
    ValueError: no folder, no table, no scans, or a column that is not there.
  """
  root = tables.require_folder(root)
  schema = MNMS_SCHEMA if schema is None else schema
  base = root / 'OpenDataset' if (root / 'OpenDataset').is_dir() else root
  found = sorted(base.glob('*information*.csv'))
  file = found[0] if found and not table else tables.find(base, table)
  people = tables.read(file)
  notes: list[str] = []
  tables.require_attributes(people, schema, MNMS_SCHEMA.names)
  rows = tables.index_by(people, 'External code', 'the patient', notes)
  records: list[Record] = []
  patients = [
    (patient, part)
    for folder, part in PARTS.items()
    for patient in sorted(p for p in (base / folder).glob('*') if p.is_dir())
  ]
  seen = {patient.name for patient, _ in patients}
  owned = patient_rows.by_scan(rows, seen, notes)
  for patient, part in patients:
    indices = owned.get(patient.name, [])
    records += _records(patient, part, schema, people, indices, notes)
  if not records:
    raise ValueError(
      f'{base} has no Training/Labeled/<code>/<code>_sa.nii.gz; expected the M&Ms '
      'folder `OpenDataset`. Correct root of the data section.'
    )
  matched = patient_rows.match(people, rows, seen, notes, 'a folder')
  return Cohort(name, schema, tuple(records), tuple(notes), matched)


def _records(folder, part, schema, table, indices, notes) -> list[Record]:
  code = folder.name
  try:
    if len(indices) != 1:
      raise ValueError(
        f'{code} has {len(indices)} rows in {table.path}; expected one, which names '
        'its frames ED and ES. Correct the table, or remove the folder.'
      )
    (index,) = indices
    sources = {p: _source(folder, part, table, index, p) for p in ('ED', 'ES')}
    # Not all versions of the table have Height and Weight.
    size = [table.number(index, column) for column in ('Height', 'Weight')]
    known = {
      'AGE': table.number(index, 'Age', 'years'),
      'SEX': table.one_of(index, 'Sex', cells.FEMALE_MALE, notes),
      'BMI': ventricles.bmi(*size),
      'VENDOR': table.one_of(index, 'Vendor', VENDORS, notes),
      'PATHOLOGY': table.one_of(index, 'Pathology', PATHOLOGIES, notes),
    }
    return ventricles.records(
      code, sources, known, schema, notes, part=part, table=table, index=index
    )
  except ValueError as error:
    return [unreadable.record(code, folder, error, part)]


def _source(folder: pathlib.Path, part, table, index, phase) -> FileSource:
  frame = table.rows[index].get(phase, '')
  if not re.fullmatch(r'\d+(\.0*)?', frame, re.ASCII):
    raise ValueError(
      f'{table.where(index, phase)}: the frame is {frame!r}; expected its number, from '
      '0. Correct the table, or remove the folder.'
    )
  return ventricles.source(
    folder / f'{folder.name}_sa',
    label_values.MNMS,
    frame=int(float(frame)),
    labelled=part != 'unlabeled',
  )
