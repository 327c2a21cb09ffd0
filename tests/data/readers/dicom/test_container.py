"""Laws of the places where DICOM files lie: zips in bounded memory, hostile ones."""

import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from ldm_jax.data import cohorts_of_config
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import FileSource
from ldm_jax.data.layouts import folder
from ldm_jax.data.readers import volume
from ldm_jax.data.readers.dicom import container
from ldm_jax.data.readers.dicom.series import read_frames


@pytest.fixture
def series(tmp_path, save_series):
  voxels = np.random.default_rng(0).integers(0, 99, (6, 5, 3, 2)).astype(np.int16)
  return save_series(tmp_path / 'series', voxels, np.diag([1.0, 1, 8, 1]))


def pack(folder, path, prefix=''):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for file in folder.iterdir():
      archive.write(file, prefix + file.name)
  return path


def test_a_zip_and_a_folder_hold_the_same_volume(tmp_path, series):
  packed = pack(series, tmp_path / 'a.zip', 'deep/er/')
  frames, header = read_frames(packed)
  expected, _ = read_frames(series)
  np.testing.assert_array_equal(frames, expected)
  assert header.clock == 'TriggerTime'
  assert not [path for path in tmp_path.iterdir() if path not in (series, packed)]


def test_one_file_is_a_volume_of_one_slice(series):
  path = min(series.iterdir())
  renamed = path.rename(series.parent / 'no_suffix')
  assert volume.read(renamed).array.shape == (1, 5, 6)


def test_what_is_beside_the_images_does_not_matter(series):
  expected = volume.read(series, frame=1).array
  (series / 'notes.txt').write_text('x')
  (series / '.hidden.dcm').write_text('x')
  (series / 'DICOMDIR').write_bytes(b'\0' * 128 + b'DICM')
  os.symlink(series, series / 'loop')
  os.symlink('itself', series / 'itself')
  np.testing.assert_array_equal(volume.read(series, frame=1).array, expected)


def test_a_file_that_is_named_but_is_no_dicom_is_refused(series):
  (series / 'x.dcm').write_text('not DICOM')
  with pytest.raises(ValueError, match=r'x\.dcm is not a DICOM file'):
    volume.read(series, frame=0)


def test_a_folder_without_images_says_so(tmp_path):
  (tmp_path / 'a.txt').write_text('x')
  with pytest.raises(ValueError, match='holds 1 files but no DICOM image'):
    volume.read(tmp_path)


def test_a_fingerprint_follows_bytes_and_choice_but_not_the_place(tmp_path, series):
  before = FileSource(str(series), frame=0).fingerprint()
  moved = series.rename(tmp_path / 'moved')
  assert FileSource(str(moved), frame=0).fingerprint() == before
  assert FileSource(f'{moved}#1', frame=0).fingerprint() != before
  stamp = container.stamp(moved)
  path = min(moved.iterdir())
  path.write_bytes(path.read_bytes()[:-1] + b'\1')
  assert FileSource(str(moved), frame=0).fingerprint() != before
  assert container.stamp(f'{moved}#1') != stamp


def test_a_changed_file_is_read_again(series):
  before = volume.read(series, frame=0).array
  for path in series.iterdir():
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b'\x22\x01')
  assert (volume.read(series, frame=0).array != before).any()


def bomb(path, name='a.dcm', size=2**20, **info):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    for key, value in info.items():
      setattr(entry, key, value)
    with archive.open(entry, 'w') as file:
      for _ in range(size // 2**20):
        file.write(bytes(2**20))


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda p: bomb(p, '../../etc/a.dcm'), 'paths that lead out'),
    (lambda p: bomb(p, '/etc/a.dcm'), 'paths that lead out'),
    (lambda p: bomb(p, 'x\\..\\a.dcm'), 'paths that lead out'),
    (lambda p: bomb(p, external_attr=0o120777 << 16), 'links'),
    (lambda p: bomb(p, size=80 * 2**20), 'which no images are'),
    (lambda p: p.write_bytes(b'PK\x03\x04' + bytes(99)), 'not a whole zip'),
    (lambda p: p.write_bytes(b''), 'not a whole zip'),
  ],
)
def test_a_hostile_zip_is_refused_from_its_directory(tmp_path, make, message):
  path = tmp_path / 'a.zip'
  make(path)
  tracemalloc.start()
  with pytest.raises(ValueError, match=message):
    volume.read(path)
  assert tracemalloc.get_traced_memory()[1] < 2**25
  tracemalloc.stop()


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path, series):
  path = pack(series, tmp_path / 'a.zip')
  content = bytearray(path.read_bytes())
  directory = content.index(b'PK\x01\x02')
  for size, message in ((2**31, 'a file of'), (600, 'truncated|damaged')):
    content[directory + 24 : directory + 28] = size.to_bytes(4, 'little')
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
      volume.read(path, frame=0)
  content[directory + 20 : directory + 24] = (2**24).to_bytes(4, 'little')
  path.write_bytes(content)
  with pytest.raises(ValueError, match='overlap'):
    volume.read(path, frame=0)


def test_a_truncated_member_is_a_verdict(tmp_path, series):
  path = pack(series, tmp_path / 'a.zip')
  content = bytearray(path.read_bytes())
  place = 200
  content[place + 40 : place + 60] = bytes(20)
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r'a\.zip, file \d+ by name'):
    volume.read(path, frame=0)


def test_an_encrypted_or_oddly_packed_zip_is_refused(tmp_path, series):
  path = tmp_path / 'a.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_LZMA) as archive:
    archive.writestr('a.dcm', io.BytesIO(bytes(200)).read())
  with pytest.raises(ValueError, match='another method'):
    volume.read(path)
  content = bytearray(pack(series, path).read_bytes())
  content[content.index(b'PK\x01\x02') + 8] |= 1
  path.write_bytes(content)
  with pytest.raises(ValueError, match='encrypted'):
    volume.read(path)


def test_a_path_with_a_hash_is_itself_when_it_exists(tmp_path, series):
  moved = series.rename(tmp_path / 'scan#1')
  assert container.split_choice(moved) == (moved, '')
  assert container.split_choice(f'{moved}#2') == (moved, '2')
  assert container.split_choice(tmp_path / 'none') == (tmp_path / 'none', '')


def test_the_folder_layout_takes_dicom_by_pattern_and_by_column(tmp_path, series):
  root = tmp_path / 'root'
  (root / 'scans').mkdir(parents=True)
  series.rename(root / 'scans' / 'a')
  pack(root / 'scans' / 'a', root / 'scans' / 'b.zip')
  (root / 'participants.tsv').write_text(
    'subject\tpath\tage\na\tscans/a\t50\nb\tscans/b.zip#1\t60\n'
  )
  schema = Schema((Attribute('age', low=18, high=95),))
  options = {'schema': schema, 'frame': 1, 'stack': True}
  by_column = folder.read(str(root), image='path', **options)
  first, second = (record.source.read()[0].array for record in by_column.records)
  np.testing.assert_array_equal(first, second)
  by_pattern = folder.read(str(root), image='scans/{subject}*', **options)
  for record, scan in zip(by_pattern.records, (first, second), strict=True):
    np.testing.assert_array_equal(record.source.read()[0].array, scan)
  digest = cohorts_of_config.listing_digest({'public': by_column})
  inside = min((root / 'scans' / 'a').iterdir())
  inside.write_bytes(inside.read_bytes() + b'\0\0')
  assert cohorts_of_config.listing_digest({'public': by_column}) != digest
