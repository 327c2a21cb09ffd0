"""OASIS-3: brains of older adults, healthy to demented, at several visits over years.

  OAS30001_MR_d0129/anat2/.../sub-OAS30001_ses-d0129[_run-01]_T1w.nii.gz
  OASIS3_demographics.csv   OASISID, AgeatEntry, GENDER (1 M, 2 F), EDUC, APOE
  OASIS3_UDSb4_cdr.csv      OASISID, days_to_visit, "age at visit", CDRTOT, CDRSUM

The folder of a scan is called subject_modality_dNNNN, days from entry. Its age is
AgeatEntry + days / 365.25, its ratings are those of the nearest clinical visit.
"""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any

from ldm_jax.data.cohorts import cells, unreadable
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.layouts.shared import patient_rows
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.tables import table as tables

ABOUT = About(
  title='OASIS-3: longitudinal brain MRI of normal ageing and Alzheimer disease',
  homepage='https://sites.wustl.edu/oasisbrains/',
  citation="""@article{lamontagne2019oasis,
  title={{OASIS-3}: Longitudinal Neuroimaging, Clinical, and Cognitive Dataset
    for Normal Aging and {Alzheimer} Disease},
  author={LaMontagne, Pamela J and Benzinger, Tammie LS and Morris, John C and others},
  journal={medRxiv},
  year={2019},
}""",
  licence='OASIS data use terms (registration, acknowledgement, no redistribution)',
  instructions='The folder with OAS3*_MR_d*/ and the tables of demographics and CDR.',
)
SEXES = {'1': 'M', '2': 'F', **cells.SEXES}
OASIS_SCHEMA = Schema(
  (
    Attribute('age', low=40, high=100, unit='years'),
    Attribute('sex', 'categorical', categories=('F', 'M')),
    Attribute('cdr', low=0, high=3, unit='CDR'),
    Attribute('education', low=0, high=30, unit='years of school'),
    # Copies of APOE's allele 4: 33 is none, 34 one, 44 two.
    Attribute('apoe4', 'categorical', categories=(0, 1, 2)),
  )
)
APOE4 = {f'{a}{b}': (a == 4) + (b == 4) for a in (2, 3, 4) for b in (2, 3, 4)}


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  modality: str = 'MR',
  suffix: str = 'T1w',
  max_days: float = 365.0,
  name: str = 'oasis',
) -> Cohort:
  """Reads the scans of one kind at all visits; a visit is called d0129.

  Args:
    root: folder in which, at any depth, the folders of the scans and the tables lie.
    schema: attributes; names other than those of OASIS_SCHEMA are columns of the
      demographics.
    modality: second word of a folder: MR.
    suffix: last word of the file names.
    max_days: longest time between a scan and the clinical visit that rates it.
    name: of the cohort.

  Raises:
    ValueError: no folder, no demographics, no scan, or a column that is not there.
  """
  root = tables.require_folder(root)
  schema = OASIS_SCHEMA if schema is None else schema
  notes: list[str] = []
  records: list[Record] = []
  people, clinic = _table(root, '*demographics*.csv'), _table(root, '*UDSb4*cdr*.csv')
  if people is None:
    raise ValueError(
      f'{root} has no OASIS3_demographics.csv; expected this table, with OASISID, '
      'AgeatEntry and GENDER. Copy it into the folder.'
    )
  tables.require_attributes(people, schema, OASIS_SCHEMA.names)
  rows = tables.index_by(people, 'OASISID', 'the subject', notes)
  visits: dict[str, list[int]] = {}
  if clinic is None:
    notes.append(f'{root} has no OASIS3_UDSb4_cdr.csv: cdr is missing everywhere')
  else:
    clinic.require('days_to_visit', 'the day of a visit', 'the table')
    visits = tables.index_by(clinic, 'OASISID', 'the subject', notes)
  scans = []
  for folder in sorted(root.rglob(f'*_{modality}_d*')):
    match = re.fullmatch(rf'([^_]+)_{re.escape(modality)}_d(\d+)', folder.name)
    nested = any(parent.name == folder.name for parent in folder.parents)
    if match is not None and not nested and folder.is_dir():
      scans.append((folder, match))
  subjects = {match[1] for _, match in scans}
  owned = patient_rows.by_scan(rows, subjects, notes)
  rated = patient_rows.by_scan(visits, subjects, [])
  for folder, match in scans:
    subject, days = match[1], int(match[2])
    try:
      index = patient_rows.only(subject, owned.get(subject, []), people, notes)
      known = _values(people, index, days, notes)
      known['cdr'] = _nearest(clinic, rated.get(subject, ()), days, max_days)
      values = tables.attributes(schema, known, people, index)
      records += _records(folder, suffix, subject, values, days, notes)
    except ValueError as error:
      fault = unreadable.FaultySource(str(folder), str(error))
      records.append(Record(folder.name, subject, fault))
  if not records:
    raise ValueError(
      f'{root} has no folder such as OAS30001_{modality}_d0129 with *_{suffix}.nii.gz; '
      'expected the layout of OASIS-3. Correct root, options.modality or '
      'options.suffix.'
    )
  there = {record.patient for record in records}
  matched = patient_rows.match(people, rows, there, notes)
  return Cohort(name, schema, tuple(records), tuple(notes), matched)


def _records(folder, suffix, subject, values, days, notes) -> list[Record]:
  files = sorted(
    p for p in folder.rglob(f'*_{suffix}.nii*') if p.name.endswith(('.nii', '.nii.gz'))
  )
  if not files:
    notes.append(f'{folder.name}: no *_{suffix}.nii.gz')
  found: dict[str, pathlib.Path] = {}
  visit = folder.name.rpartition('_')[2]
  for path in files:
    run = re.search(r'_(run-\d+)_', path.name)
    found.setdefault('_'.join([folder.name, *(run.groups() if run else ())]), path)
  years = days / 365.25
  return [
    Record(record, subject, FileSource(str(path)), values, visit, years=years)
    for record, path in found.items()
  ]


def _values(people, index, days, notes) -> dict[str, Any]:
  if index is None:
    return dict.fromkeys(OASIS_SCHEMA.names)
  entry = people.number(index, 'AgeatEntry', 'years')
  return {
    'age': None if entry is None else entry + days / 365.25,
    'sex': people.one_of(index, 'GENDER', SEXES, notes),
    'education': people.number(index, 'EDUC'),
    'apoe4': people.one_of(index, 'APOE', APOE4, notes),
  }


def _nearest(clinic, indices, days, max_days) -> float | None:
  """CDRTOT of the clinical visit nearest to a scan."""
  timed = []
  for index in indices:
    day = clinic.number(index, 'days_to_visit')
    rating = clinic.number(index, 'CDRTOT')
    if day is not None and rating is not None and abs(day - days) <= max_days:
      timed.append((abs(day - days), day, rating))
  return min(timed)[2] if timed else None


def _table(root: pathlib.Path, pattern: str) -> tables.Table | None:
  found = sorted(root.rglob(pattern))
  return tables.read(found[0]) if found else None
