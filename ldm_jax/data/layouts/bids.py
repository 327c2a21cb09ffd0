"""BIDS: one image suffix of every subject and session of a brain imaging data set.

  participants.tsv                   participant_id, age, sex, ...      (optional)
  sub-01/sub-01_sessions.tsv         session_id, age, acq_time, ...     (optional)
  sub-01/[ses-01/]anat/sub-01[_ses-01][_run-1]_T1w.nii.gz
  derivatives/<pipeline>/sub-01/[ses-01/]anat/sub-01..._dseg.nii.gz     (optional)

A value in a session's row takes precedence over one in the participant's row.
"""

from __future__ import annotations

import os
import pathlib

from ldm_jax.data.cohorts import unreadable
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.layouts.shared import bids_sessions, patient_rows
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.tables import table as tables

ABOUT = About(
  title='A data set in the Brain Imaging Data Structure',
  homepage='https://bids.neuroimaging.io',
  citation="""@article{gorgolewski2016brain,
  title={The brain imaging data structure, a format for organizing and
    describing outputs of neuroimaging experiments},
  author={Gorgolewski, Krzysztof J and Auer, Tibor and Calhoun, Vince D and others},
  journal={Scientific Data},
  year={2016},
}""",
  licence='of the data set: see its dataset_description.json',
  instructions='The folder with participants.tsv and sub-*/.',
)
BIDS_SCHEMA = Schema(
  (
    Attribute('age', low=0, high=100, unit='years'),
    bids_sessions.SEX,
  )
)


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  suffix: str = 'T1w',
  datatype: str = 'anat',
  label: str = '',
  pipeline: str = '*',
  frame: int | None = None,
  name: str = 'bids',
) -> Cohort:
  """Reads one record per image; runs of one session share its visit.

  Args:
    root: folder that holds sub-*/.
    schema: attributes; columns of participants.tsv or of the sessions' tables.
    suffix: last word of the file names.
    datatype: folder of the images: anat, func, dwi, pet.
    label: suffix of labels under derivatives/, or beside the images of a derivative,
      such as 'dseg'; '' for none.
    pipeline: folder under derivatives/ to take them from.
    frame: frame of 4D images.
    name: of the cohort.

  Raises:
    ValueError: no folder, no image, or an attribute that no table has.
  """
  root = tables.require_folder(root)
  people, notes, rows = None, list[str](), dict[str, list[int]]()
  asked = set() if schema is None else {a.column or a.name for a in schema}
  schema = BIDS_SCHEMA if schema is None else schema
  if any((root / usual).is_file() for usual in tables.NAMES):
    people = tables.read(tables.find(root))
    column = people.columns[0]
    if 'participant_id' in people.columns:
      column = 'participant_id'
    rows = tables.index_by(people, column, 'the subject', notes, bids_sessions.word)
  records: list[Record] = []
  known = set(people.columns if people else ())
  folders = sorted(p for p in root.glob('sub-*') if p.is_dir())
  words = [bids_sessions.word(folder.name) for folder in folders]
  owned = patient_rows.by_scan(rows, words, notes)
  for subject in folders:
    images = _images(subject, datatype, suffix)
    if not images:
      notes.append(f'{subject.name}: no {datatype}/*_{suffix}.nii.gz')
    try:
      own = owned.get(bids_sessions.word(subject.name), [])
      visits = bids_sessions.Visits(subject, people, own, notes)
      known |= visits.columns
      found = []
      for image in images:
        mask = _label(root, image, suffix, label, pipeline) if label else None
        found.append(visits.record(image, FileSource(image, mask, frame), schema))
      records += found
    except ValueError as error:
      records.append(unreadable.record(subject.name, subject, error))
  absent = sorted(asked - known)
  if not records or absent:
    raise ValueError(
      f'{root} has '
      + (f'no table with the columns {absent}' if records else 'no image')
      + f'; expected sub-<id>/[ses-<id>/]{datatype}/*_{suffix}.nii.gz and, in '
      'participants.tsv or the sessions.tsv, every attribute of data.schema. Correct '
      'root, options.suffix or data.schema, or use configs/folder.py.'
    )
  subjects = {bids_sessions.word(record.patient) for record in records}
  matched = None
  if people is not None:
    shown = {subject: f'sub-{subject}' for subject in subjects | set(rows)}
    matched = patient_rows.match(people, rows, subjects, notes, 'images', shown)
  return Cohort(name, schema, tuple(records), tuple(notes), matched)


def _images(subject: pathlib.Path, datatype: str, suffix: str) -> list[str]:
  found = [
    str(path)
    for folder in (subject, *sorted(subject.glob('ses-*')))
    for ending in ('.nii.gz', '.nii')
    for path in (folder / datatype).glob(f'{subject.name}*_{suffix}{ending}')
  ]
  return sorted(found)


def _label(root, image, suffix, label, pipeline) -> str | None:
  """Labels of an image in derivatives/ or beside it, or None."""
  path = pathlib.Path(image)
  folder, stem = path.parent.relative_to(root), path.name.rpartition(f'_{suffix}')[0]
  paths = set()
  for place in (f'derivatives/{pipeline}/{folder}/{stem}', f'{folder}/{stem}'):
    for ending in (f'_*{label}.nii*', f'_{label}.nii*'):
      paths |= {found for found in root.glob(f'{place}{ending}') if found != path}
  found = sorted(map(str, paths))
  if len(found) > 1:
    raise ValueError(
      f'{image} has the labels {", ".join(found[:3])}; expected one file. Name the '
      'folder under derivatives/ in options.pipeline, or a longer options.label.'
    )
  return found[0] if found else None
