"""The results of a stage are replaced whole or not at all, wherever it is killed."""

import json
import os
import shutil

from ldm_jax import replace_results
from ldm_jax.workfolder import WorkFolder

CALLS = ((os, 'rename'), (os, 'replace'), (shutil, 'rmtree'))


class Killed(BaseException):
  """What no code of a stage answers."""


def kill_at(patch, number):
  """From now on the n-th call that moves or removes something kills."""
  calls = []

  def dying(original):
    def call(*args, **kwargs):
      calls.append(args)
      if len(calls) == number:
        raise Killed
      return original(*args, **kwargs)

    return call

  for module, name in CALLS:
    patch.setattr(module, name, dying(getattr(module, name)))


def write(work, text):
  """What the stage `sample` leaves; the second run has no sweeps, but more samples."""
  work.write_text(text, 'samples', 'samples.csv')
  work.write_text(text, 'samples', f'{text}.nii')
  work.write_text(text, 'store', 'samples.npz')
  work.write_text(text, 'checkpoints', 'sample', 'params')
  if text == 'old':
    work.write_text(text, 'store', 'sweeps.npz')


def begun(root):
  """The folder with a finished run, and another that has all but finished."""
  work = WorkFolder(root)
  work.restart('sample', 'old')
  write(work, 'old')
  work.finish('sample', 'old')
  work.restart('sample', 'new')
  write(work, 'new')
  return work


def state(root):
  """{path: text} of what is in the folder, without random names and leftovers."""
  return {
    str(path.relative_to(root)): path.read_text()
    for path in sorted(root.rglob('*'))
    if path.is_file() and path.name != 'started.json'
  }


def visible(root):
  """`state` without the folder that a run works in."""
  return {
    k: v for k, v in state(root).items() if f'sample{replace_results.NEW}' not in k
  }


def test_until_a_stage_has_finished_nothing_that_was_there_changes(tmp_path):
  work = begun(tmp_path)
  old = visible(tmp_path)
  assert set(old.values()) >= {'old'} and 'new' not in old.values()
  assert WorkFolder(tmp_path).finished('sample') == 'old'
  assert work.read_json('checkpoints', 'sample', 'done.json') is None, 'it still runs'
  WorkFolder(tmp_path).settle()
  assert visible(tmp_path) == old
  assert WorkFolder(tmp_path).interrupted('sample') == 'new'


def test_killed_anywhere_in_the_replacement_it_ends_whole(tmp_path, monkeypatch):
  begun(tmp_path / 'a').finish('sample', 'new')
  new = state(tmp_path / 'a')
  assert 'old' not in new.values() and 'store/sweeps.npz' not in new
  assert not any(
    replace_results.NEW in name or replace_results.ASIDE in name for name in new
  )
  number = 0
  while True:
    number += 1
    root = tmp_path / f'killed-{number}'
    work = begun(root)
    old = visible(root)
    with monkeypatch.context() as patch:
      kill_at(patch, number)
      try:
        work.finish('sample', 'new')
        break
      except Killed:
        pass
    again = WorkFolder(root)
    again.settle()
    assert again.finished('sample') in ('old', 'new'), number
    expected = new if again.finished('sample') == 'new' else old
    assert visible(root) == expected, number
  assert number > 8, 'it was not killed inside'


def test_a_run_that_was_cut_resumes_and_another_does_not(tmp_path):
  work = begun(tmp_path)
  run = work.read_json('checkpoints', 'sample', 'started.json')['run']
  again = WorkFolder(tmp_path)
  folder = again.restart('sample', 'new')
  assert again.read_json('checkpoints', 'sample', 'started.json')['run'] == run
  assert (folder / 'params').is_file()
  assert not (folder / 'outputs').exists(), 'half a table would be taken for a whole'
  again.restart('sample', 'third')
  assert not (folder / 'params').exists()
  assert again.read_json('checkpoints', 'sample', 'started.json')['run'] != run


def test_the_key_of_an_abandoned_run_is_overwritten_before_it_is_removed(tmp_path):
  """A second link shows what became of the bytes."""
  work = WorkFolder(tmp_path)
  key = work.restart('adapt', 'old') / 'noise_key'
  key.write_text('secret')
  os.link(key, tmp_path / 'link')
  work.restart('adapt', 'old')
  assert key.read_text() == 'secret', 'a run that resumes has its key'
  work.restart('adapt', 'new')
  assert not key.exists()
  assert (tmp_path / 'link').read_text() == '000000'


def test_a_run_that_an_older_version_left_resumes(tmp_path):
  """It ran in checkpoints/<stage> itself."""
  folder = tmp_path / 'checkpoints' / 'adapt'
  folder.mkdir(parents=True)
  started = {'fingerprint': 'mark', 'run': 'name'}
  (folder / 'started.json').write_text(json.dumps(started))
  (folder / 'noise_key').write_text('key')
  work = WorkFolder(tmp_path)
  work.settle()
  work.restart('adapt', 'mark')
  assert (work.checkpoints('adapt') / 'noise_key').read_text() == 'key'
  assert work.read_json('checkpoints', 'adapt', 'started.json') == started
  work.finish('adapt', 'mark')
  assert (folder / 'done.json').is_file()


def test_a_store_on_another_disk_is_replaced_too(tmp_path, monkeypatch):
  replace = os.replace

  def across(source, target):
    if f'outputs{os.sep}' in str(source):
      raise OSError(18, os.strerror(18))
    return replace(source, target)

  work = begun(tmp_path)
  monkeypatch.setattr(os, 'replace', across)
  work.finish('sample', 'new')
  assert set(visible(tmp_path).values()) >= {'new'}
  assert 'old' not in visible(tmp_path).values()
  assert not list(tmp_path.rglob(f'*{replace_results.NEW}'))
