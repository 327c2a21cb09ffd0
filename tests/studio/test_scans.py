"""Laws of a loaded scan: read by the readers of hostile files, never on the disk."""

import os
import tempfile

import numpy as np
import pytest

import ldm_jax
from ldm_jax.data.readers import volume
from ldm_jax.data.readers.grid import centred_affine
from ldm_jax.studio import scans
from tests.data import hostile

pytestmark = pytest.mark.skipif(
  not hasattr(os, 'memfd_create'), reason='this system has no files in memory'
)


@pytest.fixture(scope='module')
def model(exported):
  return ldm_jax.load(exported / 'shareable.zip')


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  path = tmp_path_factory.mktemp('scan') / 'scan.nii.gz'
  array = 100 * np.random.default_rng(0).random((6, 20, 18)).astype(np.float32)
  volume.write(path, array, centred_affine(array.shape, (16.0, 11.0, 11.0)))
  return path


def test_a_scan_from_memory_is_the_scan_of_the_file(model, written):
  scan = scans.read(written.read_bytes(), model)
  x, record = model.read(written)
  assert np.array_equal(scan.x, x) and scan.record == record
  assert np.array_equal(scan.volume.array, volume.read(written).array)


def test_no_byte_of_a_scan_is_written_to_disk(model, written, tmp_path, monkeypatch):
  seen = []

  def read(path, *arguments, **options):
    seen.append(
      [each.is_symlink() for each in tmp_path.rglob('*') if not each.is_dir()]
    )
    return found(path, *arguments, **options)

  found = volume.read
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  monkeypatch.setattr(volume, 'read', read)
  open_files = len(os.listdir('/proc/self/fd'))
  scans.read(written.read_bytes(), model)
  assert seen == [[True]]  # one link, to memory
  assert not list(tmp_path.iterdir())
  assert len(os.listdir('/proc/self/fd')) == open_files


# Those of the corpus that are made in memory, without the bombs of other tests.
# Of several frames the studio shows the first.
REFUSED = {
  name: entry
  for name, entry in hostile.NIFTI.items()
  if entry[1] != hostile.READ and name != 'frames'
}


@pytest.mark.parametrize('name', sorted(REFUSED))
def test_the_corpus_of_hostile_files_is_refused_in_one_sentence(
  name, model, tmp_path, monkeypatch
):
  make, *_ = REFUSED[name]
  path = make(tmp_path)
  if path is None or not os.path.isfile(path):
    pytest.skip('the case is no file, which nobody can upload')
  if os.path.getsize(path) > 2**22:
    pytest.skip('the case is large; tests/data/test_hostile.py reads it')
  with open(path, 'rb') as file:
    content = file.read()
  with pytest.raises(ValueError) as error:
    scans.read(content, model)
  assert '/proc/' not in str(error.value)
  assert 'ldm-jax-studio-' not in str(error.value)


def test_more_bytes_or_voxels_than_the_studio_shows_are_refused(
  model, written, monkeypatch
):
  content = written.read_bytes()
  monkeypatch.setattr(scans, 'MAX_VOXELS', 100)
  with pytest.raises(ValueError, match='has 2160 voxels, expected at most 100'):
    scans.read(content, model)
  monkeypatch.setattr(scans, 'MAX_BYTES', 100)
  with pytest.raises(ValueError, match='bytes, expected at most 100'):
    scans.read(content, model)


def test_a_system_without_files_in_memory_is_told_the_other_way(model, monkeypatch):
  monkeypatch.delattr(os, 'memfd_create')
  with pytest.raises(ValueError, match=r'model\.edit of ldm_jax\.load'):
    scans.read(b'x', model)
