"""IXI: brains of healthy adults from three hospitals, one session each.

  IXI012-HH-1211-T1.nii.gz, ...      in the folder, or below it (IXI-T1/)
  IXI.xls or IXI.csv                 IXI_ID, "SEX_ID (1=m, 2=f)", AGE
  or participants.csv                MRID (IXI012-HH-1211), Age, Sex

The site is the second word of a file's name: Guys and HH 1.5 and 3 T Philips, IOP 1.5 T
GE. Some rows of the published table have no age, some appear twice.
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
  title='IXI: brain MRI of healthy adults from three hospitals of London',
  homepage='https://brain-development.org/ixi-dataset/',
  citation="""@misc{ixi,
  title={{IXI} dataset},
  author={{Biomedical Image Analysis Group, Imperial College London}},
  howpublished={https://brain-development.org/ixi-dataset/},
  year={2008},
}""",
  licence='CC BY-SA 3.0',
  instructions='The folder with IXI*-T1.nii.gz and IXI.xls.',
)
SITES = ('Guys', 'HH', 'IOP')
SCAN = re.compile(r'IXI(\d+)-([A-Za-z]+)-([^-]+)-(.+?)\.nii(\.gz)?')
IXI_SCHEMA = Schema(
  (
    Attribute('age', low=18, high=95, unit='years'),
    Attribute('sex', 'categorical', categories=('F', 'M')),
    Attribute('site', 'categorical', categories=SITES),
  )
)
# Column of the two tables in circulation, and what sex is called there.
SEX = {'SEX_ID (1=m, 2=f)': {'1': 'M', '2': 'F'}}
SEX |= dict.fromkeys(('Sex', 'sex', 'SEX'), cells.SEXES)


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  table: str = '',
  modality: str = 'T1',
  name: str = 'ixi',
) -> Cohort:
  """Reads one modality of every patient; one without a row lacks age and sex.

  Args:
    root: folder of the scans.
    schema: attributes; names other than age, sex and site are table columns.
    table: its file name; IXI.xls, IXI.csv or participants.csv by default.
    modality: last word of the file names: T1, T2, PD, MRA.
    name: of the cohort.

  Raises:
    ValueError: no folder, no table, no scan of that modality, or an unknown column.
  """
  root = tables.require_folder(root)
  schema = IXI_SCHEMA if schema is None else schema
  usual = ('IXI.xls', 'IXI.csv', *tables.NAMES)
  table = table or next((n for n in usual if (root / n).is_file()), '')
  people = tables.read(tables.find(root, table))
  notes: list[str] = []
  column = 'IXI_ID' if 'IXI_ID' in people.columns else 'MRID'
  tables.require_attributes(people, schema, IXI_SCHEMA.names)
  rows = tables.index_by(people, column, 'the patient', notes, _number)
  scans: dict[str, tuple[pathlib.Path, re.Match]] = {}
  others = 0
  for path in sorted(root.rglob('IXI*.nii*')):
    match = SCAN.fullmatch(path.name)
    if match and path.is_file():
      others += match[4] != modality
      if match[4] == modality:
        scans.setdefault(path.name.split('.nii')[0], (path, match))
  if not scans:
    raise ValueError(
      f'{root} has no IXI012-HH-1211-{modality}.nii.gz ({others} scans of other '
      'modalities); expected the layout of IXI. Correct root or options.modality, or '
      'use configs/folder.py.'
    )
  records = [
    _record(path, match, schema, people, rows.get(_number(match[1]), []), notes)
    for path, match in scans.values()
  ]
  there = {_number(match[1]): f'IXI{match[1]}' for _, match in scans.values()}
  shown = {number: f'IXI{number}' for number in rows} | there
  matched = patient_rows.match(people, rows, there, notes, shown=shown)
  return Cohort(name, schema, tuple(records), tuple(notes), matched)


def _record(path: pathlib.Path, match, schema, table, indices, notes) -> Record:
  patient = f'IXI{_number(match[1])}'
  try:
    known = _values(table, indices, notes, patient)
    sites = {site.lower(): site for site in SITES}
    known['site'] = sites.get(match[2].lower())
    if known['site'] is None:
      notes.append(f'{path.name}: the site {match[2]!r} is unknown, taken as missing')
    values = tables.attributes(schema, known, table, indices[0] if indices else None)
  except ValueError as error:
    return unreadable.record(patient, path, error)
  return Record(
    path.name.rsplit('-', 1)[0],
    patient,
    FileSource(str(path)),
    values,
    years=known['age'],
  )


def _values(table, indices, notes, patient) -> dict:
  """Age and sex; missing where rows of one patient contradict each other."""
  age = next((c for c in ('AGE', 'Age', 'age') if c in table.columns), 'AGE')
  sex = next((c for c in SEX if c in table.columns), 'sex')
  known: dict[str, set] = {'age': set(), 'sex': set()}
  for index in indices:
    known['age'].add(table.number(index, age, 'years'))
    known['sex'].add(table.one_of(index, sex, SEX[sex], notes))
  found: dict[str, Any] = {}
  for key, values in known.items():
    values -= {None}
    if len(values) > 1:
      notes.append(f'{patient}: rows disagree about {key} ({values}), taken as missing')
    found[key] = values.pop() if len(values) == 1 else None
  if not indices:
    notes.append(f'{patient}: without a row in {table.path.name}')
  return found


def _number(text: str) -> str:
  """'IXI012-HH-1211', '12' and '12.0' -> '012'."""
  match = re.match(r'(?:IXI)?0*(\d+)', text.strip())
  return match[1].zfill(3) if match else text.strip()
