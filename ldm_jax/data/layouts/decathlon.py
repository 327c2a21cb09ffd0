"""Medical Segmentation Decathlon, Task04 hippocampus: one crop per patient.

participants.tsv   participant_id, anterior_mm3, posterior_mm3 (optional)
images/<id>.nii.gz, labels/<id>.nii.gz
or, as distributed, imagesTr/, labelsTr/ ('published:train') and, without labels,
imagesTs/ ('published:test')
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from ldm_jax.data.cohorts import label_values, unreadable
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.layouts.shared import patient_rows
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.readers import volume
from ldm_jax.data.tables import table as tables

ABOUT = About(
  title='Medical Segmentation Decathlon, Task04 hippocampus: T1 crops with two labels',
  homepage='http://medicaldecathlon.com',
  citation="""@article{antonelli2022medical,
  title={The {Medical} {Segmentation} {Decathlon}},
  author={Antonelli, Michela and Reinke, Annika and Bakas, Spyridon and others},
  journal={Nature Communications},
  volume={13},
  number={4128},
  year={2022},
}""",
  licence='CC BY-SA 4.0',
  instructions='The folder of Task04_Hippocampus with imagesTr/ and labelsTr/.',
)
# Generous limits of adult hippocampal parts, fixed here, not measured on the data.
HIPPOCAMPUS_SCHEMA = Schema(
  (
    Attribute('anterior_mm3', low=700, high=2700, unit='mm3'),
    Attribute('posterior_mm3', low=700, high=2700, unit='mm3'),
  )
)
PARTS = {'imagesTr': 'train', 'imagesTs': 'test'}
LABEL_OF = {
  'anterior_mm3': label_values.HIPPOCAMPUS['anterior'],
  'posterior_mm3': label_values.HIPPOCAMPUS['posterior'],
}


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  table: str = '',
  frame: int | None = None,
  name: str = 'decathlon',
) -> Cohort:
  """Reads images and labels; volumes missing from the table come from the labels.

  Args:
    root: folder of the data set.
    schema: attributes; those other than the two volumes are columns of the table.
    table: its file name; participants.tsv when there is one.
    frame: channel of 4D images, which some other tasks have.
    name: of the cohort.

  Raises:
    ValueError: no folder, no images, a repeated participant, a cell that is no number.
  """
  root = tables.require_folder(root)
  schema = HIPPOCAMPUS_SCHEMA if schema is None else schema
  images = _files(root, ('images', 'imagesTr', 'imagesTs'))
  masks = _files(root, ('labels', 'labelsTr'))
  if not images:
    raise ValueError(
      f'{root} has no images/<id>.nii.gz; expected the decathlon layout (images/, '
      'labels/, participants.tsv). Correct root, or use configs/folder.py.'
    )
  people, rows = None, dict[str, int]()
  if table or any((root / usual).is_file() for usual in tables.NAMES):
    people = tables.read(tables.find(root, table))
    rows = patient_rows.one_each(people, 'participant_id', 'the participant')
    tables.require_attributes(people, schema, LABEL_OF)
  records, notes = [], list[str]()
  owned = patient_rows.by_scan(rows, images, notes)
  for participant, image in sorted(images.items()):
    label = masks.get(participant)
    index, part = owned.get(participant), PARTS.get(image.parent.name, '')
    values, faults = dict[str, Any](), list[str]()
    for attribute in schema:
      try:
        values[attribute.name] = _value(attribute, people, index, label, notes)
      except ValueError as error:
        faults.append(str(error))
    if faults:
      fault = ValueError(' '.join(faults))
      records.append(unreadable.record(participant, image, fault, part))
      continue
    records.append(
      Record(
        id=participant,
        patient=participant,
        source=FileSource(str(image), None if label is None else str(label), frame),
        attributes=values,
        part=part,
      )
    )
  matched = None
  if people is not None:
    matched = patient_rows.match(people, rows, images, notes, 'an image')
  return Cohort(name, schema, tuple(records), tuple(notes), matched)


def _files(root: pathlib.Path, folders: tuple[str, ...]) -> dict[str, pathlib.Path]:
  found: dict[str, pathlib.Path] = {}
  for folder in folders:
    for path in sorted((root / folder).glob('*.nii*')):
      if path.name.startswith('.') or not path.name.endswith(('.nii', '.nii.gz')):
        continue
      found.setdefault(path.name.removesuffix('.gz').removesuffix('.nii'), path)
  return found


def _value(attribute, table, index, label, notes) -> Any:
  column = attribute.column or attribute.name
  measured = attribute.name in LABEL_OF
  if table is not None and (column in table.columns or not measured):
    value = None if index is None else table.attribute(index, attribute)
    if value is not None or not measured:
      return value
  if label is None or not measured:
    return None
  try:
    segmentation = volume.read_label(label)
  except ValueError as error:
    notes.append(str(error))
    return None
  count = int(np.sum(segmentation.array == LABEL_OF[attribute.name]))
  return count * segmentation.voxel_ml * 1000.0
