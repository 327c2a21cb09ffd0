"""Laws of synthetic data sets: read back by our layouts, named as BIDS, marked."""

import json

import nibabel as nib
import numpy as np
import pydicom
import pytest

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.layouts import bids, folder
from ldm_jax.data.readers.grid import centred_affine
from ldm_jax.sharing import dataset, read_back

SCHEMA = Schema(
  (
    Attribute('AGE', low=20, high=80, unit='years'),
    Attribute('SEX', 'categorical', categories=('F', 'M'), labels=('female', 'male')),
  )
)
ABOUT = {
  'name': 'brain',
  'model': 'adapt (full, epsilon 3), sha256 01234567',
  'made_by': 'ldm_jax 0.1.0',
  'protected': False,
  'warning': 'NOT PRIVATE, because',
  'skull_stripped': True,
}
VECTORS = np.array([[0.0, 1.0], [np.nan, 0.0], [1.0, 0.0]], np.float32)
VOLUMES = np.random.default_rng(0).random((3, 4, 5, 6)).astype(np.float32)


NAMES = {0: 'background', 4: 'heart'}
MAPS = (4 * (VOLUMES > 0.5)).astype(np.uint8)


def write(place, suffix, label_names=None):
  volumes = [VOLUMES[:2], VOLUMES[2:]]
  if label_names:
    volumes = [(VOLUMES[:2], MAPS[:2]), (VOLUMES[2:], MAPS[2:])]
  num = dataset.write(
    place,
    volumes,
    VECTORS,
    SCHEMA,
    centred_affine((4, 5, 6), (3.0, 2.0, 1.0)),
    {**ABOUT, 'suffix': suffix},
    seed=7,
    origin='uniform: values of nobody',
    label_names=label_names,
  )
  assert num == 3
  return place


@pytest.mark.parametrize(('suffix', 'layout'), [('T1w', bids), ('', folder)])
def test_our_layouts_read_volumes_and_requests_back(tmp_path, suffix, layout):
  cohort = layout.read(write(tmp_path, suffix), SCHEMA)
  assert len(cohort.records) == 3 and not cohort.notes
  for record, vector, x in zip(cohort.records, VECTORS, VOLUMES, strict=True):
    found, _ = record.source.read()
    assert np.array_equal(found.array, x)
    assert np.allclose(found.spacing, (3, 2, 1))
    assert np.array_equal(cohort.schema.encode(record.attributes), vector, True)


@pytest.mark.parametrize(
  ('suffix', 'layout', 'label'),
  [('T1w', bids, 'dseg'), ('', folder, '{participant_id}_seg.nii.gz')],
)
def test_label_maps_are_read_back_on_the_grid_of_their_volumes(
  tmp_path, suffix, layout, label
):
  cohort = layout.read(write(tmp_path, suffix, NAMES), SCHEMA, label=label)
  for record, x, labels in zip(cohort.records, VOLUMES, MAPS, strict=True):
    scan, found = record.source.read()
    assert np.array_equal(scan.array, x) and np.array_equal(found.array, labels)
    assert np.array_equal(scan.affine, found.affine)
  table = tmp_path / ('dseg.tsv' if suffix else 'labels.json')
  if suffix:
    assert table.read_text() == 'index\tname\n0\tbackground\n4\theart\n'
  else:
    assert json.loads(table.read_text())[1] == {'value': 4, 'name': 'heart'}
  for path in tmp_path.rglob('*seg.nii.gz'):
    descrip = nib.load(path).header['descrip'].item()
    assert descrip.startswith(b'SYNTHETIC label map by ldm_jax')


@pytest.mark.parametrize('suffix', ['T1w', ''])
def test_every_volume_and_page_says_that_it_is_synthetic_and_not_private(
  tmp_path, suffix
):
  paths = sorted(write(tmp_path, suffix).rglob('*.nii.gz'))
  assert len(paths) == 3
  for path in paths:
    header = nib.load(path).header
    assert header['descrip'].item().startswith(b'SYNTHETIC volume by ldm_jax')
    assert b'NOT PRIVATE' in header['descrip'].item()
    (extension,) = header.extensions
    assert ABOUT['model'] in str(extension.get_content())
  assert 'NOT PRIVATE' in (tmp_path / 'README').read_text()


def test_a_bids_data_set_has_the_files_and_columns_that_bids_asks_for(tmp_path):
  write(tmp_path, 'T1w')
  told = json.loads((tmp_path / 'dataset_description.json').read_text())
  assert told['DatasetType'] == 'derivative' and told['BIDSVersion']
  assert told['GeneratedBy'][0]['Name'] == 'ldm_jax'
  lines = (tmp_path / 'participants.tsv').read_text().splitlines()
  assert lines[0] == 'participant_id\tAGE\tSEX\tseed'
  assert lines[2] == 'sub-synthetic00001\tn/a\tF\t7'
  sidecar = tmp_path / 'sub-synthetic00000' / 'anat' / 'sub-synthetic00000_T1w.json'
  assert json.loads(sidecar.read_text())['SkullStripped'] is True
  columns = json.loads((tmp_path / 'participants.json').read_text())
  assert columns['AGE']['Units'] == 'years'
  assert columns['SEX']['Levels'] == {'F': 'female', 'M': 'male'}
  names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('*.nii.gz')}
  assert 'sub-synthetic00000/anat/sub-synthetic00000_T1w.nii.gz' in names


def test_edits_are_not_said_to_be_of_nobody(tmp_path):
  about = {**ABOUT, 'suffix': '', 'modality': 'MR', 'protected': True}
  options = {'seed': 0, 'origin': 'o', 'as_dicom': True, 'are_edits': True}
  dataset.write(tmp_path, [VOLUMES], VECTORS, SCHEMA, np.eye(4), about, **options)
  note = nib.load(tmp_path / 'synthetic_00000.nii.gz').header['descrip'].item()
  assert note.startswith(b'SYNTHETIC edit of a public scan')
  slices = list((tmp_path / 'dicom').rglob('*.dcm'))
  assert len(slices) == 12
  assert 'PatientIdentityRemoved' not in pydicom.dcmread(slices[0])
  for name in ('README', 'participants.json'):
    text = (tmp_path / name).read_text()
    assert 'public scan' in text and 'no person' not in text
    assert 'Nobody was scanned' not in text


def of_patients(place, suffix):
  """Two visits of two patients, whose age alone differs, with label maps and DICOM."""
  vectors = np.array([[0.0, 1], [0.5, 1], [-1.0, 0], [-0.5, 0]], np.float32)
  volumes = np.random.default_rng(1).random((4, 4, 5, 6)).astype(np.float32)
  dataset.write(
    place,
    [(volumes, (4 * (volumes > 0.5)).astype(np.uint8))],
    vectors,
    SCHEMA,
    centred_affine((4, 5, 6), (3.0, 2.0, 1.0)),
    {**ABOUT, 'suffix': suffix, 'modality': 'MR'},
    seed=7,
    origin='o',
    as_dicom=True,
    label_names=NAMES,
    patients=[0, 0, 1, 1],
    within=('AGE',),
  )
  return vectors, volumes


@pytest.mark.parametrize(
  ('suffix', 'read'),
  [
    ('T1w', lambda root: bids.read(root, SCHEMA, label='dseg')),
    (
      '',
      lambda root: folder.read(
        root,
        SCHEMA,
        visit='session_id',
        label='{participant_id}_{session_id}_seg.nii.gz',
      ),
    ),
  ],
)
def test_volumes_of_a_patient_are_read_back_as_those_of_one(tmp_path, suffix, read):
  vectors, volumes = of_patients(tmp_path, suffix)
  cohort = read(tmp_path)
  assert not cohort.notes and len(cohort.records) == 4
  people = [record.patient for record in cohort.records]
  assert people[0] == people[1] != people[2] == people[3]
  assert len({record.id for record in cohort.records}) == 4
  for record, vector, x in zip(cohort.records, vectors, volumes, strict=True):
    scan, labels = record.source.read()
    assert np.array_equal(scan.array, x) and np.array_equal(labels.array > 0, x > 0.5)
    assert np.array_equal(cohort.schema.encode(record.attributes), vector)
  for path in tmp_path.rglob('*'):
    name = f'samples/{path.relative_to(tmp_path).as_posix()}'
    assert path.is_dir() or read_back.IN_SAMPLES.fullmatch(name), name
  slices = map(pydicom.dcmread, sorted((tmp_path / 'dicom').rglob('00000.dcm')))
  ids = [(each.PatientID, each.SeriesInstanceUID) for each in slices]
  assert len(ids) == len(set(ids)) == 4 and len({patient for patient, _ in ids}) == 2


def test_in_bids_a_participant_has_one_row_and_what_changes_is_in_its_sessions(
  tmp_path,
):
  of_patients(tmp_path, 'T1w')
  lines = (tmp_path / 'participants.tsv').read_text().splitlines()
  assert lines == [
    'participant_id\tSEX\tseed',
    'sub-synthetic00000\tM\t7',
    'sub-synthetic00001\tF\t7',
  ]
  told = json.loads((tmp_path / 'participants.json').read_text())
  assert set(told) == {'participant_id', 'SEX', 'seed'}
  stem = tmp_path / 'sub-synthetic00001' / 'sub-synthetic00001_sessions'
  assert stem.with_suffix('.tsv').read_text().splitlines() == [
    'session_id\tAGE',
    'ses-1\t20.0',
    'ses-2\t35.0',
  ]
  assert set(json.loads(stem.with_suffix('.json').read_text())) == {'session_id', 'AGE'}
  scan = 'sub-synthetic00001/ses-2/anat/sub-synthetic00001_ses-2_T1w.nii.gz'
  assert (tmp_path / scan).is_file()
