"""Laws of the last check: whatever must stay is found, and named by its kind."""

import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
from safetensors.numpy import save_file

from ldm_jax.data.readers import volume
from ldm_jax.sharing import dataset, package, read_back, tensors
from tests.sharing.test_dataset import ABOUT, SCHEMA, VECTORS, VOLUMES

IDS = {'private': {'CANARY7391', '4711', '99'}, 'test': {'T-000123'}}
NUM_PATIENTS = 12


@pytest.fixture(scope='module')
def clean(tmp_path_factory):
  """A shared folder in which nothing must stay."""
  place = tmp_path_factory.mktemp('clean') / 'shareable'
  place.mkdir()
  texts = {
    package.CONFIG: {'settings': {'seed': 1739100000, 'sample': {'steps': 4711}}},
    package.PREPROCESS: {'spec': {'shape': [4, 5, 6]}},
    package.SCHEMA: SCHEMA.to_config(),
    package.PRIVACY: {'num_patients': 12, 'sampling': 'each of the 12 patients'},
  }
  for name, content in texts.items():
    (place / name).write_text(package.dumped(content))
  params = {name: {'a': np.ones(2)} for name in tensors.NETWORKS}
  statistics = {name: np.ones(2) for name in tensors.STATISTICS}
  (place / package.WEIGHTS).write_bytes(tensors.to_bytes(params, statistics, 'float32'))
  (place / 'report').mkdir()
  (place / package.REPORT).write_text(
    '<html><body class="a"><a href="https://arxiv.org/abs/1">x</a> 12 patients, '
    'and/or<script>/etc/x 12:30:00</script><p>12:30</p></body>'
  )
  (place / package.CARD).write_text('# Card\n\nof 12 patients, see https://a.org/b/c\n')
  about = {**ABOUT, 'suffix': '', 'modality': 'MR'}
  options = {'seed': 0, 'origin': 'o', 'as_dicom': True}
  data = [VOLUMES], VECTORS, SCHEMA, np.eye(4), about
  dataset.write(place / 'samples', *data, **options)
  package.seal(place)
  return place


@pytest.fixture
def folder(clean, tmp_path):
  return shutil.copytree(clean, tmp_path / 'shareable')


def found(folder):
  return read_back.findings(folder, IDS, NUM_PATIENTS)


def test_a_folder_without_anything_private_passes(folder):
  assert found(folder) == []
  read_back.check(folder, IDS, NUM_PATIENTS)


def in_json(key, value):
  return package.CONFIG, package.dumped({'settings': {key: value}})


LEAKS = {
  'an id of a patient': [
    in_json('name', 'model of CANARY7391'),
    in_json('categories', ['F', '4711']),
    in_json('unit', 'T-000123'),
    ('samples/participants.tsv', 'participant_id\tAGE\n4711\t3\n'),
    (package.CARD, 'nearest to CANARY7391.'),
    (package.REPORT, '<img alt="CANARY7391">'),
  ],
  'a path or address': [
    in_json('root', '/data/hospital/scans'),
    in_json('root', '~/scans'),
    in_json('root', 'C:\\scans\\a'),
    in_json('root', 'gs://bucket/scans'),
    (package.REPORT, '<p>from /mnt/x</p>'),
  ],
  'a time or date': [
    in_json('note', 'on 2024-05-31'),
    in_json('note', 'at 12:30:59'),
    in_json('started', 1739100000.5),
    in_json('update', 3),
  ],
  'a number of patients': [
    in_json('num_private_patients', 13),
    in_json('left_out', 1),
    (package.PRIVACY, package.dumped({'num_patients': 13})),
    (package.CARD, 'trained on 13 private patients'),
  ],
  'something marked internal': [
    (package.CONFIG, package.dumped({'figure': {'internal': True}})),
    (package.REPORT, '<span class="badge">internal</span>'),
    (package.CARD, '| frechet (internal) | 1 |'),
  ],
  'is no file of a shared model': [
    ('store/private.json', '{}'),
    ('samples/CANARY.nii', 'x'),
    ('log.jsonl', '{}'),
  ],
}


@pytest.mark.parametrize(
  ('what', 'name', 'text'),
  [(what, *leak) for what, leaks in LEAKS.items() for leak in leaks],
)
def test_what_must_stay_is_found_in_every_kind_of_file(folder, what, name, text):
  (folder / name).parent.mkdir(exist_ok=True)
  (folder / name).write_text(text)
  package.seal(folder)
  told = found(folder)
  assert any(what in each and name in each for each in told), told
  with pytest.raises(ValueError, match='reading it back found') as error:
    read_back.check(folder, IDS, NUM_PATIENTS)
  for word in ('CANARY7391', '4711', 'hospital', '2024'):
    assert word not in str(error.value)


def test_headers_of_volumes_and_tensors_are_read_too(folder):
  path = folder / 'samples' / 'synthetic_00000.nii.gz'
  volume.write(path, VOLUMES[0], np.eye(4))
  assert any('no word in its header' in each for each in found(folder))
  volume.write(path, VOLUMES[0], np.eye(4), note='SYNTHETIC of CANARY7391')
  assert any('an id of a patient' in each for each in found(folder))
  image = nib.Nifti1Image(VOLUMES[0], np.eye(4))
  image.header['descrip'], image.header['aux_file'] = b'SYNTHETIC', b'scan'
  path.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
  assert any('text in its header' in each for each in found(folder))
  path.write_bytes(gzip.compress(image.to_bytes(), mtime=5))
  assert any('time in its compression' in each for each in found(folder))
  save_file({'private/a': np.ones(2)}, folder / package.WEIGHTS, {'from': 'x'})
  told = ' '.join(found(folder))
  assert 'notes beside its tensors' in told and 'no network that is shared' in told


@pytest.mark.parametrize(
  ('keyword', 'value', 'says'),
  [
    ('PatientName', 'CANARY7391^A', 'an id of a patient'),
    ('PatientID', '4711', 'an id of a patient'),
    ('StudyDate', '20200131', 'a time or date'),
    ('ImageComments', 'from /data/hospital/scans', 'a path or address'),
    ('ImageType', ['ORIGINAL', 'PRIMARY'], 'no word in its header'),
    ('PatientBirthName', [], None),
  ],
)
def test_headers_of_dicom_are_read_too(folder, keyword, value, says):
  path = next((folder / 'samples' / 'dicom').rglob('*.dcm'))
  file = pydicom.dcmread(path)
  setattr(file, keyword, value)
  file.save_as(path)
  told = found(folder)
  assert (says in told[0] and len(told) == 1) if says else told == []


def test_a_link_and_a_list_that_misses_a_file_are_found(folder, tmp_path):
  (folder / package.PRIOR).symlink_to(folder / package.CONFIG)
  told = found(folder)
  assert f'{package.PRIOR} is a link or no file' in told
  assert f'{package.SUMS} does not list the files that there are' in told


def test_a_zip_must_hold_the_folder_and_nothing_else(folder):
  packed = folder.with_suffix('.zip')
  package.write_zip(folder, packed)
  read_back.check_zip(packed, folder)
  (folder / package.CARD).write_text(json.dumps('other'))
  with pytest.raises(ValueError, match='is not the file of the folder'):
    read_back.check_zip(packed, folder)
  (folder / package.CARD).unlink()
  with pytest.raises(ValueError, match='does not hold the files'):
    read_back.check_zip(packed, folder)
