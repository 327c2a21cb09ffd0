"""Synthetic volumes as a data set that others can read: BIDS where there is a suffix.

  dataset_description.json   BIDS derivative, with GeneratedBy        (with a suffix)
  README
  participants.tsv           participant_id, requested attributes, seed
  participants.json          what the columns mean, units, levels
  sub-synthetic00000/anat/sub-synthetic00000_T1w.nii.gz, .json        (with a suffix)
  synthetic_00000.nii.gz                                              (without)
  sub-synthetic00000/anat/sub-synthetic00000_dseg.nii.gz, dseg.tsv    (label maps)
  synthetic_00000_seg.nii.gz, labels.json                             (without suffix)
  sub-synthetic00000/ses-1/anat/..., sub-synthetic00000_sessions.tsv  (several volumes
  synthetic_00000_1.nii.gz, synthetic_00000_2.nii.gz                   of a patient)
  dicom/sub-synthetic00000/00000.dcm, ... one file a slice            (if asked for)

Both are read back by `data.layouts.bids` and `data.layouts.folder`. The header of every
volume says that it is synthetic.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax import atomic
from ldm_jax.data.cohorts import label_values
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.readers import volume
from ldm_jax.sharing import dicom, package
from ldm_jax.synthesis import write_samples
from ldm_jax.synthesis.requests import row

BIDS_VERSION = '1.9.0'
DICOM = 'dicom'  # folder of the volumes in that form
# Columns of data sets whose patients have several volumes.
OF_SEVERAL = {
  'participant_id': {'Description': 'a synthetic patient; no person'},
  'session_id': {'Description': 'number of the volume among those of the patient'},
  'file': {'Description': 'of the volume'},
  'seed': {'Description': 'of the noise, which the volumes of a patient share'},
}
# Folder of BIDS in which images of a suffix lie.
DATATYPES = {'bold': 'func', 'dwi': 'dwi', 'pet': 'pet'}


def write(
  folder: pathlib.Path,
  volumes: Iterable[Any],
  vectors: np.ndarray,
  schema: Schema,
  affine: np.ndarray,
  about: Mapping[str, Any],
  *,
  seed: int,
  origin: str,
  as_dicom: bool = False,
  are_edits: bool = False,
  label_names: Mapping[int, str] | None = None,
  patients: Sequence[int] | np.ndarray | None = None,
  within: Sequence[str] = (),
) -> int:
  """Writes volumes and tables; returns how many volumes.

  Args:
    folder: is created.
    volumes: batches (b,d,h,w) in [0,1], in the order of the requests; with
      `label_names` pairs of these and their label maps (b,d,h,w), integers.
    vectors: encoded requests (n,k).
    schema: of the requests.
    affine: (4,4), (d,h,w,1) -> world RAS mm.
    about: of the model, see `SharedModel`.
    seed: of the noise, the same for all; each volume has its own, or each patient.
    origin: one sentence on whose attribute values the requests are.
    as_dicom: also write each volume as a DICOM series; `about` has its 'modality'.
    are_edits: the volumes are edits of public scans.
    label_names: label value -> what it means, where there are label maps.
    patients: (n,) number of the synthetic patient of each volume, where they have
      several; None: each volume its own.
    within: attributes that differ between the volumes of a patient.
  """
  suffix, names = about['suffix'], list[str]()
  note = header_note(about, are_edits)
  people, numbers = _patients(len(vectors), patients, suffix)
  for batch in volumes:
    batch, maps = batch if label_names else (batch, [None] * len(batch))
    for x, labels in zip(batch, maps, strict=True):
      patient, number = people[len(names)], numbers[len(names)]
      session = f'ses-{number}' if suffix else number
      name = f'{patient}_{session}' if number else patient
      path = folder / f'{name}.nii.gz'
      if suffix:
        datatype = DATATYPES.get(suffix, 'anat')
        place = folder / patient / session if number else folder / patient
        path = place / datatype / f'{name}_{suffix}.nii.gz'
        sidecar = {'Description': note}
        if datatype == 'anat':
          sidecar['SkullStripped'] = about['skull_stripped']
        atomic.write_text(_beside(path), package.dumped(sidecar))
      volume.write(path, x, affine, note=note)
      if labels is not None:
        own_note = note.replace('volume', 'label map', 1)
        volume.write(_of_labels(path, suffix), labels, affine, note=own_note)
      if as_dicom:
        # Of an edit it is not claimed that nobody was scanned.
        told = {**about, 'protected': about['protected'] and not are_edits}
        slices = dicom.slices(
          x, affine, name=name, note=note, about=told, patient=patient
        )
        for index, content in enumerate(slices):
          atomic.write_bytes(folder / DICOM / name / f'{index:05d}.dcm', content)
      names.append(name)
  values = [
    {k: 'n/a' if v == '' else v for k, v in row(schema, vector).items()}
    for vector in vectors
  ]
  columns = described(schema, origin, are_edits)
  if patients is None:
    rows = [
      {'participant_id': name, **own, 'seed': seed}
      for name, own in zip(names, values, strict=True)
    ]
  elif suffix:
    rows = _write_sessions(folder, people, numbers, values, columns, within, seed)
  else:
    rows = [
      {
        'participant_id': patient,
        'session_id': number,
        'file': f'{name}.nii.gz',
        **own,
        'seed': seed,
      }
      for patient, number, name, own in zip(people, numbers, names, values, strict=True)
    ]
  if patients is not None:
    columns |= OF_SEVERAL
  columns = {name: columns[name] for name in rows[0]}
  _write_table(folder / 'participants', rows, columns)
  atomic.write_text(folder / 'README', _readme(about, origin, are_edits))
  if label_names:
    _write_label_names(folder, label_names, suffix)
  if suffix:
    description = package.dumped(dataset_description(about))
    atomic.write_text(folder / 'dataset_description.json', description)
    if as_dicom:
      # With a slash at the end, the validator refuses the folder itself.
      atomic.write_text(folder / '.bidsignore', f'/{DICOM}\n')
  return len(names)


def _patients(
  num: int, patients: Sequence[int] | np.ndarray | None, suffix: str
) -> tuple[list[str], list[str]]:
  """Patient's name of each volume, and the volume's number in the patient or ''."""
  start = 'sub-synthetic' if suffix else 'synthetic_'
  if patients is None:
    return [f'{start}{i:05d}' for i in range(num)], [''] * num
  people = [f'{start}{i:05d}' for i in patients]
  count, numbers = collections.Counter[str](), list[str]()
  for patient in people:
    count[patient] += 1
    numbers.append(str(count[patient]))
  return people, numbers


def _write_sessions(folder, people, numbers, values, columns, within, seed):
  """Writes the table of each patient's sessions; returns the rows of participants."""
  told = {name: columns[name] for name in within}
  told = {'session_id': OF_SEVERAL['session_id'], **told}
  rows, sessions = {}, collections.defaultdict(list)
  for patient, number, own in zip(people, numbers, values, strict=True):
    fixed = {name: value for name, value in own.items() if name not in within}
    rows.setdefault(patient, {'participant_id': patient, **fixed, 'seed': seed})
    changed = {name: own[name] for name in within}
    sessions[patient].append({'session_id': f'ses-{number}', **changed})
  for patient, found in sessions.items():
    _write_table(folder / patient / f'{patient}_sessions', found, told)
  return list(rows.values())


def _write_table(stem, rows, columns):
  """A table of BIDS, and beside it what its columns mean."""
  lines = ['\t'.join(rows[0]), *('\t'.join(map(str, each.values())) for each in rows)]
  atomic.write_text(stem.with_name(f'{stem.name}.tsv'), '\n'.join(lines) + '\n')
  atomic.write_text(stem.with_name(f'{stem.name}.json'), package.dumped(columns))


def header_note(about: Mapping[str, Any], are_edits: bool = False) -> str:
  """What the header of a volume says; the first words fit `descrip`."""
  made_by = about['made_by']
  note = f'SYNTHETIC volume by {made_by}, of no person.'
  if are_edits:
    note = f'SYNTHETIC edit of a public scan by {made_by}.'
  warning = '' if about['protected'] else ' NOT PRIVATE.'
  return f'{note}{warning} Model: {about["name"]}, {about["model"]}.'


def dataset_description(about: Mapping[str, Any]) -> dict[str, Any]:
  """dataset_description.json of a BIDS derivative."""
  program, _, version = about['made_by'].partition(' ')
  return {
    'Name': f'{about["name"]}: synthetic volumes',
    'BIDSVersion': BIDS_VERSION,
    'DatasetType': 'derivative',
    'GeneratedBy': [
      {
        'Name': program,
        'Version': version,
        'Description': f'Latent diffusion model {about["model"]}. Synthetic volumes. '
        f'{about["warning"]}'.strip(),
      }
    ],
  }


def described(schema: Schema, origin: str, are_edits: bool = False) -> dict[str, Any]:
  """participants.json: what each column of participants.tsv means."""
  what = 'an edit of a public scan' if are_edits else 'a synthetic volume; no person'
  columns: dict[str, Any] = {'participant_id': {'Description': what}}
  for attribute in schema:
    columns[attribute.name] = _column(attribute, origin)
  columns['seed'] = {'Description': 'of the noise; each volume has noise of its own'}
  return columns


def _column(attribute: Attribute, origin: str) -> dict[str, Any]:
  text = f'requested value, not a measured one; {origin}'
  if attribute.kind == 'categorical':
    words = attribute.labels or attribute.categories
    levels = dict(zip(map(str, attribute.categories), map(str, words), strict=True))
    return {'Description': text, 'Levels': levels}
  low, high = attribute.limits
  column = {'Description': text, 'Minimum': low, 'Maximum': high}
  return column | ({'Units': attribute.unit} if attribute.unit else {})


def _of_labels(path: pathlib.Path, suffix: str) -> pathlib.Path:
  """The file of a volume's label map."""
  if suffix:
    return path.with_name(path.name.replace(f'_{suffix}.', '_dseg.'))
  return path.with_name(path.name.replace('.nii.gz', write_samples.SEGMENTATION))


def _write_label_names(folder, names, suffix):
  if not suffix:
    told = package.dumped(label_values.listed(names))
    atomic.write_text(folder / write_samples.LABELS[-1], told)
    return
  # The lookup table that BIDS has for discrete segmentations.
  lines = ['index\tname', *(f'{value}\t{name}' for value, name in names.items())]
  atomic.write_text(folder / 'dseg.tsv', '\n'.join(lines) + '\n')


def _beside(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(path.name.removesuffix('.nii.gz') + '.json')


def _readme(about: Mapping[str, Any], origin: str, are_edits: bool) -> str:
  whose = 'Drawn by {} from the model {}. Nobody was scanned: '
  if are_edits:
    whose = 'Edits of public scans by {} with the model {}. '
  whose = whose.format(about['made_by'], about['model'])
  warning = f'{about["warning"]}\n\n' if about['warning'] else ''
  return (
    f'{about["name"]}: synthetic volumes\n\n{warning}'
    f'{whose}participants.tsv has the values that each volume was asked for, and the '
    'header of every volume says SYNTHETIC. Intensities are in [0,1]. Research use; '
    f'not for diagnosis.\n\nRequests: {origin}.\n'
  )
