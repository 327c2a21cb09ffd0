"""UK Biobank cardiac MRI: zips of DICOM cines, two records (ED, ES) per visit.

  **/<eid>_20209_2_0.zip  short axis (20208: long axis), imaging visit (_3_0: repeat);
                          inside: *.dcm and manifest.csv or manifest.cvs
  <table>                 eid, 31-0.0 (sex), 34-0.0 (birth year), 21003-2.0 (age), ...

Nothing says which frame is ED or ES: `cine.PhaseSource` chooses, and `phase_by` of a
record names the rule. Columns may be spelt 21003-2.0, f.21003.2.0 or p21003_i2. Where
the age at the visit is absent, the year of birth and the date in the manifest give it,
right to a year.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from typing import Any

from ldm_jax.data.cohorts import cells, unreadable
from ldm_jax.data.cohorts.attributes import Attribute, Schema, is_missing
from ldm_jax.data.cohorts.cohort import Cohort, Record
from ldm_jax.data.layouts.shared import patient_rows
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.layouts.shared.cine import PHASES, PhaseSource
from ldm_jax.data.readers.dicom import ukbb_manifest
from ldm_jax.data.readers.dicom.container import Container
from ldm_jax.data.tables import table as tables

ABOUT = About(
  title='UK Biobank: cardiac cine MRI, zips of DICOM',
  homepage='https://www.ukbiobank.ac.uk',
  citation="""@article{petersen2016uk,
  title={{UK} {Biobank}'s cardiovascular magnetic resonance protocol},
  author={Petersen, Steffen E and Matthews, Paul M and Francis, Jane M and others},
  journal={Journal of Cardiovascular Magnetic Resonance},
  year={2016},
}""",
  licence='UK Biobank material transfer agreement',
  instructions='The folder with <eid>_20209_2_0.zip and a table with eid.',
)
# Slices of one stack are series b1, b2, ..., or lie mixed in a single one.
SERIES = 'CINE_segmented_SAX_b[0-9],CINE_segmented_SAX_b[0-9][0-9]|CINE_segmented_SAX'
# {visit} in a column stands for the visit of the scan, 2 or 3.
UKBB_SCHEMA = Schema(
  (
    Attribute('AGE', low=18, high=95, unit='years', column='21003-{visit}.0'),
    Attribute('SEX', 'categorical', categories=(0, 1), column='31-0.0'),  # 1 male
    Attribute('ESED', 'categorical', categories=(0, 1)),  # 0 end-systole, 1 -diastole
  )
)
BIRTH_YEAR = '34-0.0'
COLUMN = re.compile(r'(\d+)-(\d+)\.(\d+)')
ID_COLUMNS = ('eid', 'f.eid', 'participant.eid')


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  table: str = '',
  field: str = '20209',
  series: str = SERIES,
  name: str = 'ukbb',
) -> Cohort:
  """Reads all zips of one field; a participant without a row has no attributes.

  Args:
    root: folder with the zips, at any depth.
    schema: attributes; `column` is a field such as '22421-{visit}.0' of the table.
    table: file name or path; the only table in `root` by default.
    field: data field of the zips.
    series: descriptions of the series of one stack, as in `dicom.container` after '#'.
    name: of the cohort.

  Raises:
    ValueError: no folder, zips or table, a repeated eid, a column that is absent, a
      cell that is no number or known value.
  """
  root = tables.require_folder(root)
  schema = UKBB_SCHEMA if schema is None else schema
  people = tables.read(tables.find(root, table))
  spelt = next((c for c in people.columns if c.lower() in ID_COLUMNS), 'eid')
  rows = patient_rows.one_each(people, spelt, 'the participant')
  pattern = re.compile(rf'(\d+)_{re.escape(str(field))}_(\d)_\d\.zip', re.IGNORECASE)
  records, notes, seen = [], list[str](), dict[tuple[str, str], pathlib.Path]()
  zips = [
    (path, match.groups())
    for path in sorted(root.rglob('*'))
    if (match := pattern.fullmatch(path.name)) is not None and path.is_file()
  ]
  for visit in {visit for _, (_, visit) in zips}:
    for attribute in schema:
      if attribute.name != 'ESED':
        _column_of(attribute, people, visit)
  owned = patient_rows.by_scan(rows, {eid for _, (eid, _) in zips}, notes)
  for path, (eid, visit) in zips:
    if (eid, visit) in seen:
      notes.append(f'{path}: not read, {seen[eid, visit]} is the same visit')
      continue
    seen[eid, visit] = path
    if eid not in owned:
      notes.append(f'{eid}: without a row in {people.path.name}')
    try:
      shared = _values(schema, people, owned.get(eid), visit, path)
    except ValueError as error:
      fault = unreadable.FaultySource(str(path), str(error))
      records.append(Record(f'{eid}_{visit}', eid, fault, visit=visit))
      continue
    for phase in PHASES:
      source = PhaseSource(f'{path}#{series}', phase)
      values = {a.name: shared.get(a.name, int(phase == 'ED')) for a in schema}
      records.append(
        Record(
          id=f'{eid}_{visit}_{phase}',
          patient=eid,
          source=source,
          attributes=values,
          visit=visit,
          phase=phase,
          phase_by=source.rule,
        )
      )
  if not records:
    raise ValueError(
      f'{root} has no <eid>_{field}_2_0.zip; expected the zips of UK Biobank as they '
      'were downloaded. Correct root or options.field.'
    )
  there = {eid for eid, _ in seen}
  matched = patient_rows.match(people, rows, there, notes)
  return Cohort(name, schema, tuple(records), tuple(notes), matched)


def _values(
  schema: Schema,
  table: tables.Table,
  index: int | None,
  visit: str,
  path: pathlib.Path,
) -> dict[str, Any]:
  """What both phases share; ESED is left out. Names every faulty cell of the row."""
  values: dict[str, Any] = {}
  faults: list[str] = []
  for attribute in schema:
    if attribute.name == 'ESED':
      continue
    try:
      values[attribute.name] = _value(attribute, table, index, visit, path)
    except ValueError as error:
      faults.append(str(error))
  if faults:
    raise ValueError(' '.join(faults))
  return values


def _column_of(attribute: Attribute, table: tables.Table, visit: str) -> str:
  """The column of an attribute; '' where an age may come from elsewhere."""
  usual = attribute.name in UKBB_SCHEMA.names and not attribute.column
  default = UKBB_SCHEMA[attribute.name].column if usual else attribute.name
  column = _spelt(table, (attribute.column or default).replace('{visit}', visit))
  if attribute.name == 'AGE' and column not in table.columns:
    return ''
  purpose = f'attribute {attribute.name!r}'
  return table.require(column, purpose, 'data.schema (column=...)')


def _value(attribute, table, index: int | None, visit: str, path) -> Any:
  column = _column_of(attribute, table, visit)
  if index is None:
    return None
  value = None
  if attribute.name == 'SEX':
    cell = table.rows[index][column]
    sex = cells.FEMALE_MALE.get(cell.strip().lower(), cell)
    if is_missing(sex):
      return None
    try:
      return attribute.decode(attribute.encode(sex))
    except ValueError as error:
      raise ValueError(f'{table.where(index, column)}: {error}') from error
  if column:
    value = table.attribute(index, dataclasses.replace(attribute, column=column))
  if attribute.name == 'AGE' and value is None:
    return _age(table, index, path)
  return value


def _spelt(table: tables.Table, column: str) -> str:
  """The spelling of a field that the table has."""
  match = COLUMN.fullmatch(column)
  if match is None or column in table.columns:
    return column
  field, visit, part = match.groups()
  names = (f'f.{field}.{visit}.{part}', f'p{field}_i{visit}', f'p{field}')
  spellings = [*names, *(f'participant.{name}' for name in names)]
  return next((name for name in spellings if name in table.columns), column)


def _age(table: tables.Table, index: int, path: pathlib.Path) -> float | None:
  """Year of the scan minus year of birth."""
  column = _spelt(table, BIRTH_YEAR)
  if column not in table.columns or is_missing(table.rows[index][column]):
    return None
  try:
    with Container(path) as container:
      scanned = ukbb_manifest.year(container)
  except ValueError:  # `prepare` will list the damaged zip
    return None
  if scanned is None:
    return None
  born = table.attribute(
    index, Attribute(BIRTH_YEAR, low=1900, high=2020, column=column)
  )
  return scanned - born
