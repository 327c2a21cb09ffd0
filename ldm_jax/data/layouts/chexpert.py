"""CheXpert: 2D chest radiographs with 14 findings read from the reports.

  [CheXpert-v1.0[-small]/]{train,valid}.csv   Path, Sex, Age, AP/PA, 14 findings
  .../train/patient00001/study1/view1_frontal.jpg

A finding is 1 (there), 0 (not there), -1 (uncertain) or blank (not mentioned). Paths in
the tables begin with the name of either release, whatever the folder is called.
"""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any

from ldm_jax.data.cohorts import cells, unreadable
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, Record, Source
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.readers.picture import ImageSource
from ldm_jax.data.tables import table as tables

ABOUT = About(
  title='CheXpert: chest radiographs with uncertain findings',
  homepage='https://stanfordmlgroup.github.io/competitions/chexpert/',
  citation="""@inproceedings{irvin2019chexpert,
  title={{CheXpert}: A Large Chest Radiograph Dataset with Uncertainty Labels and
    Expert Comparison},
  author={Irvin, Jeremy and Rajpurkar, Pranav and Ko, Michael and others},
  booktitle={AAAI Conference on Artificial Intelligence},
  year={2019},
}""",
  licence='Stanford University Dataset Research Use Agreement',
  instructions='The folder CheXpert-v1.0[-small] with train.csv and valid.csv.',
)
PARTS = {'train': 'train', 'valid': 'validation', 'test': 'test'}
# The five that the publication evaluates.
FINDINGS = (
  'Atelectasis',
  'Cardiomegaly',
  'Consolidation',
  'Edema',
  'Pleural Effusion',
)
# What -1 becomes; [Irvin19] Sec. 3 calls them U-Ignore, U-Ones, U-Zeros, U-MultiClass.
UNCERTAIN = {'missing': None, 'present': 'yes', 'absent': 'no', 'own': 'uncertain'}
SEXES = {**cells.SEXES, 'unknown': None}
PROJECTIONS = {'ap': 'AP', 'pa': 'PA', 'll': None, 'rl': None}  # lateral ones
KNOWN = ('age', 'sex', 'projection')
PATH = re.compile(r'(?:.*/)?(\w+/(patient\w+)/(study\w+)/(view\w+)\.(?:jpe?g|png))')


def chexpert_schema(findings: tuple = FINDINGS, uncertain: str = 'missing') -> Schema:
  """age, sex, projection, and every finding as no/yes[/uncertain]."""
  categories = ('no', 'yes', 'uncertain') if uncertain == 'own' else ('no', 'yes')
  return Schema(
    (
      Attribute('age', low=18, high=90, unit='years'),
      Attribute('sex', 'categorical', categories=('F', 'M')),
      Attribute('projection', 'categorical', categories=('AP', 'PA')),
      *(
        Attribute(
          finding.lower().replace(' ', '_'),
          'categorical',
          categories=categories,
          column=finding,
        )
        for finding in findings
      ),
    )
  )


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  findings: tuple = FINDINGS,
  uncertain: str = 'missing',
  blank: str = 'missing',
  view: str = 'frontal',
  name: str = 'chexpert',
) -> Cohort:
  """Reads the tables that exist: `published:train` and `published:validation`.

  Args:
    root: folder of train.csv, or the one above it.
    schema: attributes; the default has age, sex, projection and `findings`.
    findings: columns of the tables.
    uncertain: what -1 means: 'missing', 'present', 'absent' or, as a category, 'own'.
    blank: what an empty cell means: 'missing' or 'absent'.
    view: 'frontal', 'lateral', or '' for both.
    name: of the cohort.

  Raises:
    ValueError: no folder, no table, an unknown option, or a column that is not there.
  """
  root = tables.require_folder(root)
  for option, value, known in (
    ('uncertain', uncertain, tuple(UNCERTAIN)),
    ('blank', blank, ('missing', 'absent')),
    ('view', view, ('frontal', 'lateral', '')),
  ):
    if value not in known:
      raise ValueError(
        f'options.{option} is {value!r}; expected one of {known}. Set options.{option}.'
      )
  schema = chexpert_schema(tuple(findings), uncertain) if schema is None else schema
  bases = (root, *sorted(p for p in root.glob('CheXpert-v1.0*') if p.is_dir()))
  base = next(
    (b for b in bases if any((b / f'{p}.csv').is_file() for p in PARTS)), None
  )
  if base is None:
    raise ValueError(
      f'{root} has no train.csv or valid.csv; expected the folder CheXpert-v1.0 or '
      'CheXpert-v1.0-small. Correct root of the data section.'
    )
  records, notes = list[Record](), list[str]()
  says = {'1': 'yes', '0': 'no', '-1': UNCERTAIN[uncertain]}
  says[''] = 'no' if blank == 'absent' else None
  for file, part in PARTS.items():
    if not (base / f'{file}.csv').is_file():
      continue
    table = tables.read(base / f'{file}.csv')
    table.require('Path', 'the picture', 'the table')
    tables.require_attributes(table, schema, KNOWN)
    for index, row in enumerate(table.rows):
      match = PATH.fullmatch(row['Path'].replace('\\', '/'))
      if match is None:
        records.append(_pathless(table, index, part))
      elif view in match[4].lower():
        records.append(_record(base, match, table, index, schema, says, part, notes))
  return Cohort(name, schema, tuple(records), tuple(notes))


def _pathless(table, index, part) -> Record:
  error = ValueError(
    f'{table.where(index, "Path")}: expected a path such as CheXpert-v1.0/train/'
    f'patient00001/study1/view1_frontal.jpg, got {table.rows[index]["Path"]!r}. '
    'Correct the table.'
  )
  return unreadable.record(f'{part}-line-{table.lines[index]}', table.path, error, part)


def _record(
  base: pathlib.Path, match, table, index, schema, says, part, notes
) -> Record:
  path, patient, study, view = match.groups()
  source: Source = ImageSource(str(base / path))
  values: dict[str, Any] = {}
  try:
    known = {
      'age': table.number(index, 'Age', 'years'),
      'sex': table.one_of(index, 'Sex', SEXES, notes),
      'projection': table.one_of(index, 'AP/PA', PROJECTIONS, notes),
    }
    for attribute in schema:
      column = attribute.column or attribute.name
      if attribute.categories[:2] == ('no', 'yes'):
        known[attribute.name] = table.one_of(index, column, says, notes)
    values = tables.attributes(schema, known, table, index)
  except ValueError as error:
    source = unreadable.FaultySource(str(base / path), str(error))
  record = f'{patient}_{study}_{view}'
  return Record(record, patient, source, values, visit=study, part=part)
