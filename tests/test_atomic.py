"""Laws of atomic files: whole or not at all."""

import errno
import os

import pytest

from ldm_jax import atomic


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
  path = tmp_path / 'a.json'
  atomic.write_json(path, {'old': 1})
  before = path.read_text()

  def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match=r'a\.json could not be written') as error:
    atomic.write_json(path, {'new': 2})
  assert error.value.errno == errno.ENOSPC
  assert path.read_text() == before
  assert os.listdir(tmp_path) == ['a.json']


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_file(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match=r'x\.bin could not be written'):
    atomic.write_bytes(tmp_path / 'file' / 'x.bin', b'1')


def test_json_is_strict(tmp_path):
  with pytest.raises(ValueError):
    atomic.write_json(tmp_path / 'a.json', {'x': float('nan')})
  assert not list(tmp_path.iterdir())
