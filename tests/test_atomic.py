"""Laws of atomic files: whole or not at all."""

import csv
import errno
import json
import os

import numpy as np
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


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
  path = tmp_path / 'a.npz'
  atomic.write_arrays(path, x=np.arange(3))

  class Broken:
    def __array__(self, dtype=None, copy=None):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    atomic.write_arrays(path, y=np.ones(4), z=Broken())
  with np.load(path) as kept:
    assert kept.files == ['x'] and kept['x'].tolist() == [0, 1, 2]
  assert os.listdir(tmp_path) == ['a.npz']


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_file(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match=r'x\.bin could not be written'):
    atomic.write_bytes(tmp_path / 'file' / 'x.bin', b'1')


def test_json_is_strict_unless_asked_otherwise(tmp_path):
  with pytest.raises(ValueError):
    atomic.write_json(tmp_path / 'a.json', {'x': float('nan')})
  assert not list(tmp_path.iterdir())
  atomic.write_json(tmp_path / 'a.json', {'x': float('inf')}, allow_nan=True)
  assert json.loads((tmp_path / 'a.json').read_text()) == {'x': float('inf')}


def test_a_table_has_the_columns_of_its_first_row_and_nothing_where_none_is(tmp_path):
  rows = [{'id': 'a,"b"', 'x': 1.5}, {'id': 'ü\nn', 'x': None}]
  atomic.write_csv(tmp_path / 'new' / 'a.csv', rows)
  with open(tmp_path / 'new' / 'a.csv', encoding='utf-8', newline='') as file:
    found = list(csv.DictReader(file))
  assert found == [{'id': 'a,"b"', 'x': '1.5'}, {'id': 'ü\nn', 'x': ''}]


def test_text_that_is_no_unicode_is_written_as_its_escape(tmp_path):
  atomic.write_text(tmp_path / 'a', 'name \udcff.nii')
  assert (tmp_path / 'a').read_text() == 'name \\udcff.nii'


def test_a_secret_file_is_never_readable_by_others(tmp_path, monkeypatch):
  seen, replace = [], os.replace
  monkeypatch.setattr(
    os, 'replace', lambda a, b: seen.append(os.stat(a).st_mode & 0o777) or replace(a, b)
  )
  atomic.write_bytes(tmp_path / 'key', b'x', mode=0o600)
  assert seen == [0o600] == [os.stat(tmp_path / 'key').st_mode & 0o777]
