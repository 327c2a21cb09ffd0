"""Sunnybrook Cardiac Data as first published: DICOM cines and outlines by hand.

  scd_patientdata.csv   PatientID, OriginalID, Gender, Age, Pathology
  SCD_IMAGES_*/<PatientID>/CINESAX_*/IM-0003-0001.dcm       20 frames per slice
  SCD_ManualContours/<OriginalID>/contours-manual/IRCCI-expert/
    IM-0001-0048-{i,o,p1,p2}contour-manual.txt    48 = number of the file in the series

Contour N lies on slice (N-1)//20, phase (N-1)%20, in the order of the files. The table
writes SC-HF-I-1, the folders SC-HF-I-01. The cavity (1) is the inside of i, papillary
muscles included; the myocardium (2) lies between i and o.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from typing import Any

from ldm_jax.data.cohorts import unreadable
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort, Record, Source
from ldm_jax.data.layouts.scd import ABOUT as SCD
from ldm_jax.data.layouts.scd import SCD_SCHEMA, padded, values_of_row
from ldm_jax.data.layouts.shared import contours, patient_rows, ventricles
from ldm_jax.data.layouts.shared.cine import PHASES, PhaseSource
from ldm_jax.data.readers import volume
from ldm_jax.data.tables import table as tables

ABOUT = dataclasses.replace(
  SCD,
  title='Sunnybrook Cardiac Data as published: DICOM cine stacks and contours',
  instructions='The folder with SCD_IMAGES_*/, SCD_ManualContours/ and the table.',
)
FRAMES = 20
CONTOUR = re.compile(r'IM-\d+-(\d+)-([io])contour-manual\.txt')
BY_CONTOURS = 'contours'


def read(
  root: str | os.PathLike,
  schema: Schema | None = None,
  table: str = '',
  name: str = 'scd_dicom',
) -> Cohort:
  """Reads ED and ES of every patient that has a short-axis cine.

  Args:
    root: folder with the table, the images and the contours.
    schema: attributes; names other than those of SCD_SCHEMA are table columns.
    table: file name or path; the only table in `root` by default.
    name: of the cohort.

  Raises:
    ValueError: no folder, table or cine, a repeated patient, a cell that is no number
      or known value.
  """
  root = tables.require_folder(root)
  schema = SCD_SCHEMA if schema is None else schema
  people = tables.read(tables.find(root, table))
  tables.require_attributes(people, schema, SCD_SCHEMA.names)
  people.require('PatientID', 'the folder of images', 'the table')
  rows = patient_rows.one_each(people, 'OriginalID', 'the folder of contours', padded)
  drawn = {padded(p.parent.parent.name): p for p in root.rglob('IRCCI-expert')}
  folders = {p.name: p for p in sorted(root.rglob('SCD*')) if any(p.glob('CINESAX*'))}
  records, notes = list[Record](), list[str]()
  for patient, index in rows.items():
    images = people.rows[index]['PatientID']
    folder = folders.pop(images, None)
    if folder is None:
      notes.append(f'{patient}: no folder {images} with a CINESAX series')
      continue
    phases = _phases(drawn.get(patient))
    if not phases:
      notes.append(f'{patient}: no outlines of two phases; frames are estimated')
    series = _series(folder, phases, patient, notes)
    try:
      known = values_of_row(people, index, patient, notes) | _measured(series, phases)
      others = {name: None for name in SCD_SCHEMA.names} | known
      tables.attributes(schema, others, people, index)
    except ValueError as error:
      records.append(unreadable.record(patient, folder, error))
      continue
    for phase in PHASES:
      source, by = _source(series, phases.get(phase, ()), phase)
      known['ESED'] = int(phase == 'ED')
      records.append(
        Record(
          id=f'{patient}_{phase}',
          patient=patient,
          source=source,
          attributes=tables.attributes(schema, known, people, index),
          phase=phase,
          phase_by=by,
        )
      )
  notes += [
    f'{folder}: without a row in {people.path.name}' for folder in folders.values()
  ]
  if not records:
    raise ValueError(
      f'{root} has no <PatientID>/CINESAX_*/*.dcm for any row of {people.path.name}; '
      'expected the layout of the Sunnybrook DICOM release. Correct root, or use the '
      'layout scd for the NIfTI export.'
    )
  return Cohort(name, schema, tuple(records), tuple(notes))


def _phases(folder: pathlib.Path | None) -> dict[str, tuple]:
  """'ED' and 'ES' -> outlines: the phases of the largest and the smallest cavity."""
  by_phase: dict[int, list] = {}
  for path in sorted(folder.iterdir()) if folder else ():
    match = CONTOUR.fullmatch(path.name)
    if match:
      number = int(match[1])
      outline = (number, match[2], str(path))
      by_phase.setdefault((number - 1) % FRAMES, []).append(outline)
  areas = {phase: _cavity(outlines) for phase, outlines in by_phase.items()}
  # Lone outlines of a third phase are no stack.
  most = max((len(outlines) for outlines in by_phase.values()), default=0)
  ranked = sorted(
    (p for p in by_phase if areas[p] and 4 * len(by_phase[p]) >= most),
    key=areas.__getitem__,
  )
  if len(ranked) < 2:
    return {}
  largest, smallest = ranked[-1], ranked[0]
  return {'ED': tuple(by_phase[largest]), 'ES': tuple(by_phase[smallest])}


def _cavity(outlines) -> float:
  """Area of the cavities in pixels, summed over slices; 0 where one is unreadable."""
  try:
    return sum(
      contours.area(contours.read_points(p)) for _, k, p in outlines if k == 'i'
    )
  except ValueError:
    return 0.0


def _series(folder: pathlib.Path, phases, patient: str, notes) -> pathlib.Path:
  """The short-axis series on which the outlines were drawn."""
  needed = {number for outlines in phases.values() for number, _, _ in outlines}
  numbers = {
    series: {contours.number_of(path.name) for path in series.glob('*.dcm')}
    for series in sorted(folder.glob('CINESAX*'))
  }
  fitting = [series for series, found in numbers.items() if needed <= found]
  if len(fitting) > 1:
    notes.append(f'{patient}: {len(fitting)} CINESAX series, {fitting[0].name} is read')
  return (fitting or list(numbers))[0]


def _source(series: pathlib.Path, outlines: tuple, phase: str) -> tuple[Source, str]:
  """(source, name of the rule that chose the phase)."""
  if outlines:
    return contours.ContourSource(str(series), outlines), BY_CONTOURS
  source = PhaseSource(str(series), phase)
  return source, source.rule


def _measured(series: pathlib.Path, phases) -> dict[str, Any]:
  """Depth of the stack, and the volumes inside its outlines; None where unknown."""
  try:
    header = volume.reader(series).read_header(series, stack=True)
  except ValueError:  # `prepare` will report the damaged series
    return dict.fromkeys(('DEPTH', 'LVEDV', 'LVESV', 'LVEF'))
  edv, esv = (
    _cavity(phases[phase]) * header.voxel_ml if phase in phases else None
    for phase in PHASES
  )
  fraction = ventricles.ejection_fraction(edv, esv)
  return {'DEPTH': header.shape[0], 'LVEDV': edv, 'LVESV': esv, 'LVEF': fraction}
