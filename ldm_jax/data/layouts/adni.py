"""ADNI: brain scans as NIfTI or DICOM, matched to the visits of ADNIMERGE.

  <PTID>/**/*_I<ImageID>.nii*          one file per scan, or
  <PTID>/<sequence>/<date>/I<ImageID>/ a folder of DICOM
  ADNIMERGE.csv   RID, PTID, VISCODE, EXAMDATE, DX, PTGENDER, AGE, MMSE, CDRSB, IMAGEUID

A scan belongs to the visit whose IMAGEUID it has, else to the one nearest to the date
in its path. AGE in the table is the age at baseline: the time since then is added.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib
import re
from typing import Any

from ldm_jax.data.cohorts import unreadable
from ldm_jax.data.cohorts.attributes import Attribute, Schema, is_missing
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record, Source
from ldm_jax.data.layouts.shared import patient_rows
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.tables import table as tables

ABOUT = About(
  title="Alzheimer's Disease Neuroimaging Initiative: T1 brain MRI over several visits",
  homepage='https://adni.loni.usc.edu',
  citation="""@article{petersen2010alzheimer,
  title={{Alzheimer's} {Disease} {Neuroimaging} {Initiative} ({ADNI}): clinical
    characterization},
  author={Petersen, Ronald C and Aisen, Paul S and Beckett, Laurel A and others},
  journal={Neurology},
  year={2010},
}""",
  licence='ADNI Data Use Agreement',
  instructions='The folder with <PTID>/**/*_I<ImageID> and ADNIMERGE.csv.',
)
# Generous limits of adults and of the two scales.
ADNI_SCHEMA = Schema(
  (
    Attribute('AGE', low=45, high=100, unit='years'),
    Attribute('SEX', 'categorical', categories=('F', 'M')),
    Attribute('DX', 'categorical', categories=('CN', 'MCI', 'Dementia')),
    Attribute('MMSE', low=0, high=30),
    Attribute('CDRSB', low=0, high=18),
  )
)
PATIENT = re.compile(r'\d{3}_S_\d{4,5}')
IMAGE = re.compile(r'(?:^|_)I(\d+)$')
DATE = re.compile(r'(\d{4})-(\d{2})-(\d{2})(?:_|$)')
# Scans are made within weeks of a visit; further away they belong to none.
MAX_DAYS = 180
DAYS_PER_YEAR = 365.25


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  table: str = '',
  max_days: int = MAX_DAYS,
  name: str = 'adni',
) -> Cohort:
  """Reads every scan; one that fits no visit has no attributes, with a note.

  Args:
    root: folder with the patients' folders, at any depth.
    schema: attributes; names other than those of ADNI_SCHEMA are columns of the table.
    table: file name or path; ADNIMERGE.csv, or the only table in `root`, by default.
    max_days: farthest visit that a scan may belong to.
    name: of the cohort.

  Raises:
    ValueError: no folder, scans or table, a cell that is no number or known value.
  """
  root = tables.require_folder(root)
  schema = ADNI_SCHEMA if schema is None else schema
  if not table and (root / 'ADNIMERGE.csv').is_file():
    table = 'ADNIMERGE.csv'
  merged = tables.read(tables.find(root, table))
  notes: list[str] = []
  visits = tables.index_by(merged, 'PTID', 'the patient', notes)
  records, scans = [], _scans(root)
  owned = patient_rows.by_scan(visits, {patient for _, patient, _ in scans}, notes)
  for path, patient, image in scans:
    rows = owned.get(patient, [])
    index = _visit(merged, rows, path, image, max_days)
    label = '' if index is None else merged.rows[index].get('VISCODE', '')
    if index is None:
      notes.append(f'{patient}, I{image}: fits none of its {len(rows)} visits')
    values, faults = dict[str, Any](), list[str]()
    for attribute in schema:
      _column_of(attribute, merged)
      try:
        values[attribute.name] = _value(attribute, merged, rows, index)
      except ValueError as error:
        faults.append(str(error))
    source: Source = FileSource(str(path))
    if faults:
      source = unreadable.FaultySource(str(path), ' '.join(faults))
    records.append(
      Record(
        id='_'.join(part for part in (patient, label, f'I{image}') if part),
        patient=patient,
        source=source,
        attributes={} if faults else values,
        visit=label or f'I{image}',
      )
    )
  if not records:
    raise ValueError(
      f'{root} has no <PTID>/**/*_I<ImageID>.nii and no <PTID>/**/I<ImageID>/*.dcm; '
      'expected scans in the folders of ADNI. Correct root, or use configs/folder.py.'
    )
  there = {record.patient for record in records}
  matched = patient_rows.match(merged, visits, there, notes)
  return Cohort(name, schema, tuple(records), tuple(notes), matched)


def _scans(root: pathlib.Path) -> list[tuple[pathlib.Path, str, str]]:
  """(path, PTID, image id) of every scan, each image once."""
  found: dict[tuple[str, str], pathlib.Path] = {}
  for path in sorted(root.rglob('*_I*.nii*')) + sorted(root.rglob('I*')):
    stem = path.name.removesuffix('.gz').removesuffix('.nii')
    image, is_file = IMAGE.search(stem), path.name.endswith(('.nii', '.nii.gz'))
    folders = path.relative_to(root).parts[:-1]
    patient = next((part for part in folders if PATIENT.fullmatch(part)), None)
    if image is None or patient is None or path.name.startswith('.'):
      continue
    if path.is_file() if is_file else path.is_dir() and any(path.glob('*.dcm')):
      found.setdefault((patient, image[1]), path)
  return [(path, patient, image) for (patient, image), path in sorted(found.items())]


def _visit(table, rows, path: pathlib.Path, image: str, max_days: int) -> int | None:
  for index in rows:
    cell = table.rows[index].get('IMAGEUID', '')
    if not is_missing(cell) and cell.split('.')[0].lstrip('I') == image:
      return index
  dates = [DATE.match(part) for part in path.parts]
  scanned = next((_date(match[0].strip('_')) for match in dates if match), None)
  gaps: dict[int, int] = {}
  for index in rows:
    examined = _date(table.rows[index].get('EXAMDATE', ''))
    if examined is not None and scanned is not None:
      gaps[index] = abs((examined - scanned).days)
  best = min(gaps, key=gaps.__getitem__, default=None)
  return best if best is not None and gaps[best] <= max_days else None


def _column_of(attribute: Attribute, table: tables.Table) -> str:
  column = attribute.column or {'SEX': 'PTGENDER'}.get(attribute.name, attribute.name)
  purpose = f'attribute {attribute.name!r}'
  return table.require(column, purpose, 'data.schema (column=...)')


def _value(attribute: Attribute, table: tables.Table, rows, index: int | None) -> Any:
  own = ADNI_SCHEMA.names if not attribute.column else ()
  column = _column_of(attribute, table)
  if index is None:
    return None
  value = table.attribute(index, dataclasses.replace(attribute, column=column))
  if attribute.name != 'AGE' or attribute.name not in own or value is None:
    return value
  years = _years_since_baseline(table, rows, index)
  return None if years is None else value + years


def _years_since_baseline(table, rows, index: int) -> float | None:
  """From the dates of both visits, else from the months in VISCODE ('m06')."""
  codes = {row: table.rows[row].get('VISCODE', '').lower() for row in rows}
  first = next((row for row in rows if codes[row] in ('bl', 'm00')), None)
  cells = [
    table.rows[row].get('EXAMDATE', '') for row in (first, index) if row is not None
  ]
  dates = [date for cell in cells if (date := _date(cell)) is not None]
  if len(dates) == 2:
    return (dates[1] - dates[0]).days / DAYS_PER_YEAR
  months = re.fullmatch(r'm(\d+)', codes[index])
  if months is None:
    return 0.0 if codes[index] == 'bl' else None
  return int(months[1]) / 12


def _date(text: str) -> datetime.date | None:
  for form in ('%Y-%m-%d', '%m/%d/%Y'):
    try:
      return datetime.datetime.strptime(text.strip(), form).date()
    except ValueError:
      continue
  return None
