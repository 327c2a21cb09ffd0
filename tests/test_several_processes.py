"""Two processes leave what one leaves: latents, samples, edits, tables, figures."""

import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
AGAIN = ('prepare', 'sample', 'counterfactual', 'evaluate')


def start(work, *flags, count=2, of_last=()):
  """Processes of one command on a work folder; the last one has flags of its own."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{probe.getsockname()[1]}'
  words = [sys.executable, '-m', 'ldm_jax.main', f'--config={ROOT / "tests/micro.py"}']
  words += [f'--workdir={work}', f'--coordinator={address}', f'--num_processes={count}']
  own = lambda number: of_last if number == count - 1 else ()
  return [
    subprocess.Popen(
      [*words, f'--process_id={number}', *flags, *own(number)],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for number in range(count)
  ]


def ends(processes, status=0):
  """What each has said, once all have ended with this status."""
  try:
    told = [process.communicate(timeout=600)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  for process, text in zip(processes, told, strict=True):
    assert process.returncode == status, text[-3000:]
  return told


@pytest.fixture(scope='module')
def made_by_two(finished, tmp_path_factory):
  """The folder `finished` after two processes have made again what they share out."""
  work = tmp_path_factory.mktemp('several') / 'work'
  shutil.copytree(finished, work)
  shutil.rmtree(work / 'store' / 'volumes')
  shutil.rmtree(work / 'store' / 'latents')
  for stage in AGAIN:
    (work / 'checkpoints' / stage / 'done.json').unlink()
  first, second = ends(start(work))
  lines = [line for line in second.splitlines() if line and '[Gloo]' not in line]
  assert not lines, 'the first process speaks for all'
  return work, first


def test_two_processes_make_again_what_is_gone_and_keep_what_is_up_to_date(made_by_two):
  _, told = made_by_two
  for stage in ('autoencoder', 'diffusion', 'adapt'):
    assert f'{stage}: up to date' in told
  for stage in (*AGAIN, 'encode'):
    assert f'{stage}: up to date' not in told


def test_volumes_and_latents_are_those_of_one_process(made_by_two, finished):
  work, _ = made_by_two
  names = lambda folder: sorted(path.name for path in folder.iterdir())
  for kind in ('volumes', 'latents'):
    ours, theirs = work / 'store' / kind, finished / 'store' / kind
    assert names(ours) == names(theirs)
  for path in (finished / 'store' / 'volumes').iterdir():
    assert path.read_bytes() == (work / 'store' / 'volumes' / path.name).read_bytes()
  for path in (finished / 'store' / 'latents').iterdir():
    ours = np.load(work / 'store' / 'latents' / path.name)
    np.testing.assert_allclose(ours, np.load(path), atol=1e-5)
  assert not list((work / 'store').glob('fingerprints-*'))


@pytest.mark.parametrize('name', ['samples', 'sweeps', 'counterfactuals'])
def test_samples_and_edits_are_those_of_one_process(made_by_two, finished, name):
  ours, theirs = (
    np.load(w / 'store' / f'{name}.npz') for w in (made_by_two[0], finished)
  )
  assert set(ours) == set(theirs)
  for key in theirs:
    if theirs[key].dtype.kind == 'f':
      np.testing.assert_allclose(ours[key], theirs[key], atol=1e-4, err_msg=key)
    else:
      np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


@pytest.mark.parametrize('folder', ['samples', 'counterfactuals'])
def test_every_file_is_there_once_and_the_tables_are_equal(
  made_by_two, finished, folder
):
  work, _ = made_by_two
  names = lambda root: sorted(path.name for path in (root / folder).iterdir())
  assert names(work) == names(finished)
  table = f'{folder}/{folder}.csv'
  assert (work / table).read_text() == (finished / table).read_text()


def test_the_figures_and_the_statement_are_those_of_one_process(made_by_two, finished):
  work, _ = made_by_two
  ours, theirs = (
    json.loads((w / 'metrics.json').read_text()) for w in (work, finished)
  )
  assert ours.keys() == theirs.keys()
  for name in ('frechet', 'kid'):
    assert ours[name]['value'] == pytest.approx(
      theirs[name]['value'], rel=1e-2, abs=1e-3
    )
  ledger = 'store/ledger-private.jsonl'
  assert (work / ledger).read_bytes() == (finished / ledger).read_bytes()
  ours, theirs = (
    json.loads((w / 'privacy.json').read_text()) for w in (work, finished)
  )
  assert ours == theirs


def test_an_error_is_told_once_by_each_with_the_status_of_one_process(tmp_path):
  first, second = ends(start(tmp_path / 'w', '--stages=sample'), 2)
  assert first.count('ldm-jax:') == second.count('ldm-jax:') == 1
  assert '--stages=adapt' in first and '--stages=adapt' in second


def test_processes_with_other_configs_are_refused(tmp_path):
  other = ('--config.adapt.steps=9',)
  processes = start(tmp_path / 'w', '--stages=prepare', of_last=other)
  for told in ends(processes, 2):
    assert 'must be alike' in told and 'config' in told


def test_sigterm_to_one_of_two_stops_both_and_the_same_command_goes_on(tmp_path):
  processes = start(tmp_path / 'w', '--stages=prepare')
  while not (tmp_path / 'w' / 'config.json').exists():
    if any(process.poll() is not None for process in processes):
      break
  processes[1].send_signal(signal.SIGTERM)
  told = [process.communicate(timeout=300)[0] for process in processes]
  statuses = {process.returncode for process in processes}
  # 75: it met the other's end before the word of it; 0: the stage was faster.
  assert statuses in ({143}, {75, 143}, {0}), told
  ends(start(tmp_path / 'w', '--stages=prepare'))
  assert (tmp_path / 'w' / 'checkpoints' / 'prepare' / 'done.json').is_file()
