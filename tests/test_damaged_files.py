"""Laws of damaged files: the file is named, and what to delete and run."""

import json
import os
import zlib

import numpy as np
import pytest

from ldm_jax import damaged_files, replace_results
from ldm_jax.workfolder import WorkFolder


def cut(path, to=None):
  os.truncate(path, path.stat().st_size // 2 if to is None else to)


@pytest.fixture
def noted(tmp_path):
  folder, note = tmp_path / 'params', tmp_path / 'params.files.json'
  for name in ('a', 'd/b'):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode() * 100)
  damaged_files.note_files(folder, note, hashed=True)
  return folder, note


def test_whole_files_and_files_without_a_note_pass(noted):
  damaged_files.check_files(*noted)
  folder, note = noted
  assert json.loads(note.read_text())['d/b'] == [300, zlib.crc32(b'd/b' * 100)]
  (folder / 'd/b').unlink()
  note.unlink()
  damaged_files.check_files(folder, note)


@pytest.mark.parametrize(
  ('damage', 'words'),
  [
    (cut, '150 bytes instead of 300'),
    (lambda path: cut(path, 0), '0 bytes instead of 300'),
    (os.unlink, 'it is missing'),
    (lambda path: path.write_bytes(b'x' * 300), 'not those that were written'),
  ],
)
def test_a_file_that_is_cut_gone_or_changed_is_named(noted, damage, words):
  folder, note = noted
  damage(folder / 'd/b')
  with pytest.raises(damaged_files.DamagedError, match=words) as told:
    damaged_files.check_files(folder, note)
  assert str(folder / 'd/b') in str(told.value)
  assert told.value.found.startswith(str(folder / 'd/b'))


@pytest.mark.parametrize(('text', 'words'), [('', 'it is empty'), ('{"a": ', 'line 1')])
def test_json_that_is_empty_or_cut_is_named_with_what_to_run(tmp_path, text, words):
  work = WorkFolder(tmp_path)
  work.write_text(text, 'checkpoints', 'encode', 'latent_statistics.json')
  with pytest.raises(ValueError, match=words) as told:
    work.read_json('checkpoints', 'encode', 'latent_statistics.json')
  path = tmp_path / 'checkpoints' / 'encode' / 'latent_statistics.json'
  assert str(path) in str(told.value) and '--stages=encode' in str(told.value)


@pytest.mark.parametrize('name', damaged_files.KEYS)
@pytest.mark.parametrize('text', ['[]', 'null', '7', '{"version": 99}'])
def test_json_of_another_content_is_named_like_one_that_is_cut(tmp_path, name, text):
  path = tmp_path / 'checkpoints' / 'diffusion' / name
  path.parent.mkdir(parents=True)
  path.write_text(text)
  if text.startswith('{') and not damaged_files.KEYS[name]:
    assert damaged_files.read_json(path) == {'version': 99}
    return
  assert not damaged_files.is_whole(path)
  with pytest.raises(ValueError, match=r'(expected a JSON object|has no)') as told:
    damaged_files.read_json(path)
  assert f'{path} is damaged' in str(told.value) and 'Put ' in str(told.value)


@pytest.mark.parametrize(
  'text', ['[]', 'null', '{"version": 99}', '{"d/b": [1, 2, 3]}']
)
def test_a_note_of_another_content_tells_nothing(noted, text):
  noted[1].write_text(text)
  damaged_files.check_files(*noted)


def test_arrays_that_are_cut_are_named_with_the_stage_that_makes_them(tmp_path):
  work = WorkFolder(tmp_path)
  np.savez(work.path('store', 'samples.npz'), x=np.arange(1000.0))
  assert work.read_arrays('samples.npz')['x'][-1] == 999
  for size in (4000, 0):
    cut(tmp_path / 'store' / 'samples.npz', size)
    with pytest.raises(ValueError, match=r'samples\.npz is damaged.*--stages=sample'):
      work.read_arrays('samples.npz')


@pytest.mark.parametrize('stage', replace_results.OUTPUTS)
def test_of_every_output_the_stage_that_makes_it_is_named(tmp_path, stage):
  for name in replace_results.OUTPUTS[stage]:
    assert f'--stages={stage},' in damaged_files.remedy(tmp_path / name)


@pytest.mark.parametrize('stage', damaged_files.TRAINED)
def test_a_model_is_written_again_from_its_state_where_that_is_there(tmp_path, stage):
  folder = tmp_path / 'checkpoints' / stage
  (folder / 'state').mkdir(parents=True)
  told = damaged_files.remedy(folder / 'params' / 'd' / 'x')
  assert f'Delete {folder}/params and {folder}/done.json' in told
  assert f'--stages={stage}' in told and 'trains no step' in told
  begun = folder.with_name(f'{stage}.new')
  begun.mkdir()
  told = damaged_files.remedy(folder / 'params' / 'd' / 'x')
  assert f'Delete {begun}, {folder}/params' in told, 'it would go on instead'
  (folder / 'state').rmdir()
  told = damaged_files.remedy(folder / 'params' / 'd' / 'x')
  assert 'back from a copy' in told and ('spends' in told) == (stage == 'adapt')


def test_a_run_that_has_not_finished_is_deleted_alone(tmp_path):
  path = tmp_path / 'checkpoints' / 'diffusion.new' / 'started.json'
  assert f'delete {path.parent} and run --stages=diffusion' in damaged_files.remedy(
    path
  )


def test_long_words_of_a_library_become_one_short_line(tmp_path):
  told = str(damaged_files.error(tmp_path / 'x', ValueError('words\n' * 1000)))
  assert len(told) < 600 and '\n' not in told
