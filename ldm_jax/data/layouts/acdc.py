"""ACDC: two labelled short-axis stacks (ED, ES) per patient, 100 + 50 patients.

  [database/]{training,testing}/patient001/
    Info.cfg                            ED, ES (frames, from 1), Group, Height, Weight
    patient001_4d.nii.gz
    patient001_frame01.nii.gz, patient001_frame01_gt.nii.gz

Labels in the files: 1 RV, 2 myocardium, 3 LV; after reading: 1 LV, 2 myocardium, 3 RV.
"""

from __future__ import annotations

import os
import pathlib
import re

from ldm_jax.data.cohorts import cells, label_values, unreadable
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.layouts.shared import ventricles
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.tables import table as tables

ABOUT = About(
  title='Automated Cardiac Diagnosis Challenge: short-axis cine MRI with three labels',
  homepage='https://www.creatis.insa-lyon.fr/Challenge/acdc/',
  citation="""@article{bernard2018deep,
  title={Deep Learning Techniques for Automatic {MRI} Cardiac Multi-Structures
    Segmentation and Diagnosis: Is the Problem Solved?},
  author={Bernard, Olivier and Lalande, Alain and Zotti, Clement and others},
  journal={IEEE Transactions on Medical Imaging},
  year={2018},
}""",
  licence='CC BY-NC-SA 4.0; registration required',
  instructions='The folder with training/ and testing/ (patient001/Info.cfg, ...).',
)
PARTS = {'training': 'train', 'testing': 'test'}
GROUPS = ('NOR', 'MINF', 'DCM', 'HCM', 'RV')
ACDC_SCHEMA = Schema(
  (
    *ventricles.ATTRIBUTES,
    Attribute('BMI', low=14, high=50, unit='kg/m2'),
    Attribute('PATHOLOGY', 'categorical', categories=GROUPS),
  )
)


def read(
  root: str | os.PathLike, schema: Schema | None = None, name: str = 'acdc'
) -> Cohort:
  """Reads the parts that exist: `published:train` and `published:test`.

  Raises:
    ValueError: no folder, no patients, or an attribute that ACDC does not have.
  """
  root = tables.require_folder(root)
  schema = ACDC_SCHEMA if schema is None else schema
  bases = (root, root / 'database', root / 'ACDC' / 'database')
  base = next((b for b in bases if any((b / part).is_dir() for part in PARTS)), root)
  records: list[Record] = []
  notes: list[str] = []
  for folder, part in {**PARTS, '.': ''}.items():
    for patient in sorted((base / folder).glob('patient*')):
      if patient.is_dir():
        records += _records(patient, part, schema, notes)
  if not records:
    raise ValueError(
      f'{root} has no training/patient001/ or testing/patient101/; expected the ACDC '
      'folder `database`. Correct root of the data section.'
    )
  return Cohort(name, schema, tuple(records), tuple(notes))


def _records(folder, part, schema, notes) -> list[Record]:
  patient, problems = folder.name, []
  try:
    info = _info(folder / 'Info.cfg')
    sources = {phase: _source(folder, info, phase) for phase in ('ED', 'ES')}
  except ValueError as error:
    return [unreadable.record(patient, folder / 'Info.cfg', error, part)]
  size = [cells.number(info.get(key, '')) for key in ('height', 'weight')]
  group = info.get('group', '').upper()
  if group not in (*GROUPS, ''):
    problems.append(f'the group {group!r} is unknown and taken as missing')
  if None in size:
    problems.append('no height or weight')
  known = {
    'BMI': ventricles.bmi(*size),
    'PATHOLOGY': group if group in GROUPS else None,
  }
  notes += [f'{patient}: {problem}' for problem in problems]
  return ventricles.records(patient, sources, known, schema, notes, part=part)


def _info(path: pathlib.Path) -> dict[str, str]:
  """Info.cfg, lines `key: value` -> lower-case key -> text."""
  if not path.is_file():
    raise ValueError(
      f'{path} does not exist; expected lines such as "ED: 1". Restore the file, or '
      'remove the patient.'
    )
  try:
    with path.open('rb') as file:
      text = file.read(65536).decode('utf-8-sig', 'replace')
  except OSError as error:
    raise ValueError(
      f'{path} cannot be read ({error.strerror}). Repair it, or remove the patient.'
    ) from error
  pairs = (line.partition(':') for line in text.splitlines())
  return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _source(folder: pathlib.Path, info: dict[str, str], phase: str) -> FileSource:
  """The phase's own file, else its frame of the 4D file."""
  text = info.get(phase.lower(), '')
  if not text.isascii() or not text.isdigit() or int(text) < 1:
    raise ValueError(
      f'{folder / "Info.cfg"} gives {phase} as {text!r}; expected the number of a '
      'frame, from 1. Correct the file, or remove the patient.'
    )
  images: dict[int, str] = {}
  masks: dict[int, str] = {}
  for path in sorted(folder.glob('*_frame*.nii*')):
    match = re.search(r'_frame(\d+)(_gt)?\.nii(\.gz)?$', path.name)
    if match and path.is_file():
      (masks if match[2] else images).setdefault(int(match[1]), str(path))
  label, frame = masks.get(int(text)), None
  image = images.get(int(text))
  if image is None:
    frame = int(text) - 1
    image = next((str(p) for p in sorted(folder.glob('*_4d.nii*'))), None)
  if image is None:
    raise ValueError(
      f'{folder} has neither {folder.name}_frame{int(text):02d}.nii.gz, the {phase} of '
      f'Info.cfg, nor {folder.name}_4d.nii.gz; expected one of them. Copy the patient '
      'again, or remove it.'
    )
  return FileSource(image, label, frame, stack=True, codes=label_values.ACDC)
