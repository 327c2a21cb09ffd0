"""Any folder of scans with one table of patients: named columns are attributes.

Scans are NIfTI files, or JPEG and PNG pictures (one slice, see `readers.picture`).

participants.tsv   subject, [image path], [label path], [visit], [cohort], one
                   column/attribute
"""

from __future__ import annotations

import glob
import os
import pathlib
import re
from typing import Any

from ldm_jax.data.cohorts import ids, matching, unreadable
from ldm_jax.data.cohorts.attributes import Schema, is_missing
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record, Source
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.readers.dicom import container
from ldm_jax.data.readers.picture import SUFFIXES, ImageSource
from ldm_jax.data.tables import table as tables

ABOUT = About(
  title="A user's own folder of NIfTI files with one table",
  homepage='',
  citation='',
  licence="That of the user's own data; nothing is granted by this software.",
  instructions='The folder with participants.tsv and its files; schema and options are '
  'given in --config.',
)
SUBJECT_COLUMNS = ('participant_id', 'subject', 'subject_id', 'patient', 'patient_id')
COHORTS = ('public', 'private', 'test')
IMAGE_COLUMNS = ('image', 'path', 'file', 'filename', 'scan')
PATTERNS = (
  '{subject}.nii*',
  '{subject}_*.nii*',
  '{subject}-*.nii*',
  '{subject}/*.nii*',
  'images/{subject}.nii*',
  *(f'{{subject}}{suffix}' for suffix in SUFFIXES),
)


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  table: str = '',
  subject: str = '',
  image: str = '',
  label: str = '',
  visit: str = '',
  frame: int | None = None,
  stack: bool = False,
  cohort: str = '',
  name: str = 'folder',
) -> Cohort:
  """Reads one record per row, or per file where a pattern finds several.

  Args:
    root: folder; paths and patterns are relative to it.
    schema: attributes with their columns and ranges; required.
    table: file name; participants.tsv, participants.csv or the only table by default.
    subject: column of the patient's id; a usual name or the first column by default.
    image: column of paths, or a pattern such as '{subject}/*_T1w.nii.gz' in which
      {column} stands for a cell; by default a usual column or a usual pattern.
    label: column or pattern of integer labels; a row without one has no labels.
    visit: column that tells the scans of one patient apart.
    frame: frame of 4D files.
    stack: keep the through-plane axis as d.
    cohort: column with public, private or test for each patient; these become the
      parts 'published:public', ... of data.<cohort>.part.
    name: of the cohort.

  Raises:
    ValueError: what is missing, the columns there are, and the option to set; a patient
      of two cohorts, or of none.
  """
  root = tables.require_folder(root)
  people = tables.read(tables.find(root, table))
  subject = subject_column(people, subject)
  if schema is None:
    raise _without_schema(people, subject)
  for attribute in schema:
    column = attribute.column or attribute.name
    people.require(column, f'attribute {attribute.name!r}', 'data.schema (column=...)')
  if visit:
    people.require(visit, 'the visit', 'options.visit')
  _check_rows(people, subject, visit)
  parts_of = cohorts_of(people, subject, cohort) if cohort else {}
  image = _image_option(root, people, subject, image)
  if label:
    _check_cell_or_pattern(people, label, 'label')
  records, notes = list[Record](), list[str]()
  masks: list[Any] = [[] for _ in people.rows]
  if label:
    masks, _ = _files_of_rows(root, people, label, subject)
  scans, respelt = _files_of_rows(root, people, image, subject)
  if respelt:
    row_id, file_id = next(iter(respelt.items()))
    notes.append(
      f'{len(respelt)} ids of {people.path.name} differ from those of the files by '
      f'leading zeros and were matched, such as {row_id} with {file_id}'
    )
  for index, row in enumerate(people.rows):
    patient, when = row[subject], row[visit] if visit else ''
    labels = masks[index]
    images = [path for path in scans[index] if path not in labels]
    if not images:
      notes.append(f'{patient}: no file for {image!r}')
    if label and images and len(labels) not in (0, len(images)):
      raise ValueError(
        f'{people.path}, line {people.lines[index]}: {len(images)} images but '
        f'{len(labels)} labels; expected one label per image. Set options.label.'
      )
    fault, values = '', dict[str, Any]()
    try:
      values = people.attributes(index, schema)
    except ValueError as error:  # the other patients are fine
      fault = str(error)
    for number, path in enumerate(images):
      parts = [patient, when, _stem(path) if len(images) > 1 else '']
      source = _source(path, labels[number] if labels else None, frame, stack)
      records.append(
        Record(
          id=_safe('_'.join(part for part in parts if part)),
          patient=patient,
          source=unreadable.FaultySource(path, fault) if fault else source,
          attributes=values,
          visit=when or parts[2],
          part=parts_of.get(patient, ''),
        )
      )
  if not records:
    raise ValueError(
      f'{root} has no file for {image!r} in any of the {len(people.rows)} rows of '
      f'{people.path.name}; expected .nii or .nii.gz files. Set options.image to a '
      f'column ({tables.listed(people.columns)}) or a pattern such as '
      "'{subject}/*.nii.gz'."
    )
  listed = {row[subject] for row in people.rows}
  named = listed | set(respelt.values())
  others = matching.strangers(root, image, (subject, 'subject'), named, label)
  there = {record.patient for record in records} | others
  matched = matching.compare(listed, there, people.path.name)
  return Cohort(name, schema, tuple(records), tuple(notes), matched)


def cohorts_of(table: tables.Table, subject: str, column: str) -> dict[str, str]:
  """Patient -> 'public', 'private' or 'test' from the column, upper or lower case.

  Raises:
    ValueError: no such column, another word, no word, or two words for one patient.
  """
  table.require(column, 'the cohort', 'options.cohort (cohort=COLUMN)')
  found: dict[str, str] = {}
  for index, row in enumerate(table.rows):
    patient, word = row[subject], row[column].lower()
    if word not in COHORTS:
      raise ValueError(
        f'{table.where(index, column)}: the cohort of {patient!r} is {row[column]!r}; '
        f'expected one of {", ".join(COHORTS)} in every row. Correct the table, or '
        'name another column in options.cohort (cohort=COLUMN).'
      )
    if found.setdefault(patient, word) != word:
      raise ValueError(
        f'{table.where(index, column)}: patient {patient!r} is {word}, but '
        f'{found[patient]} in a row above; expected one cohort per patient, because '
        'public scans get no privacy guarantee. Correct the table.'
      )
  return found


def subject_column(table: tables.Table, subject: str = '') -> str:
  """The column of the patients' ids: the one named, else a usual one, else the first.

  Raises:
    ValueError: the named column is not there.
  """
  if subject:
    return table.require(subject, 'the patient', 'options.subject')
  lowered = {column.lower(): column for column in table.columns}
  usual = [lowered[name] for name in SUBJECT_COLUMNS if name in lowered]
  return usual[0] if usual else table.columns[0]


def _without_schema(table: tables.Table, subject: str) -> ValueError:
  columns = [column for column in table.columns if column != subject]
  return ValueError(
    f'{table.path} has the columns {tables.listed(columns) or "(none)"} beside '
    f'{subject!r}, but data.schema names no attribute. Set data.schema, for '
    "example ({'name': 'age', 'low': 18, 'high': 95, 'unit': 'years'}, {'name': 'sex', "
    "'kind': 'categorical', 'categories': ('F', 'M')}). Ranges are not measured on "
    'the data: a range taken from private patients would be a private release.'
  )


def _image_option(
  root: pathlib.Path, table: tables.Table, subject: str, image: str
) -> str:
  if image:
    _check_cell_or_pattern(table, image, 'image')
    return image
  lowered = {column.lower(): column for column in table.columns}
  for name in IMAGE_COLUMNS:
    if name in lowered:
      return lowered[name]
  for pattern, exact in [(p, exact) for exact in (True, False) for p in PATTERNS]:
    if exact:
      found = [_files(root, row, pattern, subject) for row in table.rows]
    else:  # no file is named after a patient as the table writes the id
      found, _ = _files_of_rows(root, table, pattern, subject)
    if any(found):
      several = next((files for files in found if len(files) > 1), None)
      if several:
        names = ', '.join(os.path.relpath(file, root) for file in several[:4])
        raise ValueError(
          f'{root} has several files for one patient ({names}); expected one. Set '
          "options.image to a pattern such as '{subject}/*_T1w.nii.gz', and "
          'options.label for labels.'
        )
      return pattern
  raise ValueError(
    f'{root} has no .nii or .nii.gz file named after the patients in column '
    f'{subject!r} of {table.path.name}, and no column of paths; columns are '
    f'{tables.listed(table.columns)}. Set options.subject, and options.image to a '
    "column or a pattern such as '{subject}/*.nii.gz'."
  )


def _check_cell_or_pattern(table: tables.Table, text: str, option: str) -> None:
  if text in table.columns:
    return
  holes = re.findall(r'\{([^{}]*)\}', text)
  unknown = [hole for hole in holes if hole not in ('subject', *table.columns)]
  if not holes or unknown:
    raise ValueError(
      f'options.{option} is {text!r}, which is neither a column of {table.path} nor a '
      f'pattern of its columns; columns are {tables.listed(table.columns)}. Set '
      f"options.{option} to one, or to a pattern such as '{{subject}}/*.nii.gz'."
    )


def _check_rows(table: tables.Table, subject: str, visit: str) -> None:
  """Every row names a patient, and no two rows the same patient and visit."""
  seen: dict[tuple[str, str], int] = {}
  for index, row in enumerate(table.rows):
    patient, when = row[subject], row[visit] if visit else ''
    if is_missing(patient):
      raise ValueError(
        f'{table.where(index, subject)}: the patient has no id; expected one in '
        'every row. Correct the table, or name the right column in options.subject.'
      )
    fault = ids.fault(patient)
    if fault:
      raise ValueError(
        f'{table.where(index, subject)}: the patient id {patient[:80]!r} {fault}; '
        f'expected {ids.REQUIRED}. Correct the table, or name the right column in '
        'options.subject.'
      )
    if (patient, when) in seen:
      raise ValueError(
        f'{table.where(index, subject)}: patient {patient!r}'
        + (f', visit {when!r},' if when else '')
        + f' is on line {seen[patient, when]} already; expected one row per patient, '
        'or a column that tells the scans apart. Remove the duplicate, or set '
        'options.visit.'
      )
    seen[patient, when] = table.lines[index]


def _files(root: pathlib.Path, row: dict, option: str, subject: str) -> list[str]:
  """Files of one row by a column of paths or by a pattern."""
  if option in row:
    cell = row[option]
    return [] if is_missing(cell) else [str(root / os.path.expanduser(cell))]
  cells = {**row, 'subject': row[subject]}
  pattern = re.sub(r'\{([^{}]*)\}', lambda m: glob.escape(cells[m.group(1)]), option)
  if '**' in pattern:  # pathlib does not follow links into loops, as glob does
    base = pathlib.Path('/') if os.path.isabs(pattern) else root
    found = [str(path) for path in base.glob(pattern.lstrip('/'))]
  else:
    found = glob.glob(os.path.join(glob.escape(str(root)), pattern))
  endings = ('.nii', '.nii.gz', *SUFFIXES)
  plain = sorted(p for p in found if p.lower().endswith(endings))
  return plain or sorted(p for p in found if container.is_dicom(p))


def _files_of_rows(
  root: pathlib.Path, table: tables.Table, option: str, subject: str
) -> tuple[list[list[str]], dict[str, str]]:
  """Files of every row, and the ids of rows -> those of files, spelt otherwise.

  A row without a file takes those whose id differs from its own by leading zeros alone.
  """
  found = [_files(root, row, option, subject) for row in table.rows]
  respelt: dict[str, str] = {}
  if all(found) or option in table.columns:
    return found, respelt
  names = matching.ids_in_names(root, option, (subject, 'subject'), folders=True)
  ids = {row[subject] for row in table.rows}
  spelt = {row: name for name, row in matching.same_patients(ids, names).items()}
  for index, row in enumerate(table.rows):
    name = spelt.get(row[subject], row[subject])
    if not found[index] and name != row[subject]:
      found[index] = _files(root, {**row, subject: name}, option, subject)
      respelt |= {row[subject]: name} if found[index] else {}
  return found, respelt


def _source(path: str, label: str | None, frame: int | None, stack: bool) -> Source:
  if path.lower().endswith(SUFFIXES):
    return ImageSource(path, label)
  return FileSource(path, label, frame, stack)


def _stem(path: str) -> str:
  return os.path.splitext(os.path.basename(path).removesuffix('.gz'))[0]


def _safe(text: str) -> str:
  return re.sub(r'[/\\\s]+', '-', text)
