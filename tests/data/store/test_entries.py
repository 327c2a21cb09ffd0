"""Laws of entries: what is written is read, byte for byte, and damage is refused."""

import json

import numpy as np
import pytest

from ldm_jax.data.preprocessing.preprocess import Processed, Spec
from ldm_jax.data.store import entries

ARRAY = np.random.default_rng(0).random((4, 3, 2), np.float32)
LABEL = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
RECORD = {'slices': {'jumps': 0}, 'text': 'Größe'}


@pytest.fixture(params=[LABEL, None], ids=['labelled', 'plain'])
def written(tmp_path, request):
  """(path, label) of an entry."""
  path = tmp_path / 'a.safetensors'
  entries.write(path, Processed(ARRAY, request.param, RECORD))
  return str(path), request.param


def test_what_is_written_is_read(written):
  path, label = written
  header = entries.read_header(path)
  assert header.record == RECORD and header.is_labelled == (label is not None)
  found = np.empty_like(ARRAY)
  entries.read_into(path, header.size, header.start, found)
  window = entries.mapped(path, header.size, header.start, ARRAY.shape)
  assert np.array_equal(found, ARRAY) and np.array_equal(window, ARRAY)
  assert not window.flags.writeable
  if label is not None:
    assert np.array_equal(entries.read_label(path), label)


def test_equal_scans_give_equal_bytes(tmp_path):
  for name in 'ab':
    entries.write(tmp_path / name, Processed(ARRAY, LABEL, RECORD))
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.99, 1.01])
def test_a_file_of_another_length_is_refused(written, share):
  path, _ = written
  header = entries.read_header(path)
  with open(path, 'rb') as file:
    content = file.read() + bytes(9)
  with open(path, 'wb') as file:
    file.write(content[: int(share * header.size)])
  with pytest.raises(ValueError, match=r'.'):
    entries.read_header(path)
  with pytest.raises(ValueError, match='bytes instead of'):
    entries.read_into(path, header.size, header.start, np.empty_like(ARRAY))
  with pytest.raises(ValueError, match='bytes instead of'):
    entries.mapped(path, header.size, header.start, ARRAY.shape)


def test_other_tensors_are_no_entry_and_a_missing_file_is_an_os_error(tmp_path):
  from safetensors.numpy import save

  for tensors, metadata in (
    ({'array': ARRAY}, None),
    ({'array': ARRAY.astype(np.float64)}, {'record': json.dumps(RECORD)}),
    ({'other': ARRAY}, {'record': json.dumps(RECORD)}),
    ({'array': ARRAY}, {'record': '{'}),
  ):
    (tmp_path / 'x').write_bytes(save(tensors, metadata))
    with pytest.raises(ValueError, match=r'.'):
      entries.read_header(tmp_path / 'x')
  with pytest.raises(OSError, match='none'):
    entries.read_header(tmp_path / 'none')


def test_another_spec_or_another_scan_is_another_entry():
  specs = Spec((6, 6, 6)), Spec((6, 6, 7))
  keys = {entries.key(spec, scan) for spec in specs for scan in ('a', 'b')}
  assert len(keys) == 4 and all(len(key) == 64 for key in keys)
