"""A run that is killed continues, and ends where the unbroken run ends: bit for bit.

The process is killed with SIGKILL, which no code of it can answer, at named moments
and once from outside. The unbroken run is the session's `finished`.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from ldm_jax import main
from ldm_jax.training import checkpoint

ROOT = pathlib.Path(__file__).resolve().parent.parent
STAGES = 'prepare,autoencoder,encode,diffusion,adapt'
TRAINED = ('autoencoder', 'diffusion', 'adapt')
# Kills its own process before or after the n-th call of a function, then is main.
SUICIDAL = """
import importlib, os, signal, sys
from ldm_jax import main
main.set_up_jax()
place, count, moment, *flags = sys.argv[1:]
module, _, path = place.partition(':')
owner, calls = importlib.import_module(module), []
*parents, name = path.split('.')
for parent in parents:
  owner = getattr(owner, parent)
original = getattr(owner, name)
def kill(when):
  if moment == when and len(calls) == int(count):
    os.kill(os.getpid(), signal.SIGKILL)
def wrapped(*args, **kwargs):
  calls.append(1)
  kill('before')
  result = original(*args, **kwargs)
  kill('after')
  return result
setattr(owner, name, wrapped)
sys.exit(main.main(flags))
"""
# Each next run resumes what the one before left.
MOMENTS = (
  ('ldm_jax.atomic:write_bytes', 5, 'before'),  # prepare
  ('ldm_jax.training.checkpoint:Checkpoints.save', 2, 'before'),  # autoencoder
  ('ldm_jax.training.checkpoint:save_params', 1, 'before'),
  (
    'ldm_jax.pipeline.pretrain:epoch_batch',
    4,
    'before',
  ),  # diffusion, between checkpoints
  ('ldm_jax.privacy.ledger:Ledger.record_all', 1, 'before'),  # adapt: a key, no release
  ('ldm_jax.privacy.ledger:Ledger.record_all', 1, 'after'),  # a release, no step
  ('ldm_jax.privacy.sampling:PoissonSampler.draw', 4, 'after'),
  ('ldm_jax.training.checkpoint:Checkpoints.save', 2, 'after'),  # the last step
  ('ldm_jax.privacy.secret_key:destroy_key', 1, 'before'),
)


def flags(work):
  return [
    f'--config={ROOT / "tests" / "micro.py"}',
    f'--workdir={work}',
    f'--stages={STAGES}',
  ]


def ledger(work):
  path = work / 'store' / 'ledger-private.jsonl'
  lines = path.read_text().splitlines() if path.exists() else []
  return [line for line in map(json.loads, lines) if 'cohort' not in line]


def without_names(release):
  """What a release says, without the random names of run and line."""
  return {k: v for k, v in release.items() if k not in ('run', 'id', 'chain')}


def assert_same_end(work, finished):
  for stage in TRAINED:
    mine, theirs = (
      checkpoint.load_params(folder / 'checkpoints' / stage)
      for folder in (work, finished)
    )
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)
  assert [without_names(r) for r in ledger(work)] == [
    without_names(r) for r in ledger(finished)
  ]
  mine, theirs = (
    json.loads((folder / 'privacy.json').read_text()) for folder in (work, finished)
  )
  assert mine == {**theirs, 'code_version': mine['code_version']}
  assert not list(work.rglob('noise_key*'))


def test_a_run_killed_at_every_kind_of_moment_ends_like_the_unbroken_one(
  finished, tmp_path
):
  work, known = tmp_path / 'work', set()
  for place, count, moment in MOMENTS:
    command = [sys.executable, '-c', SUICIDAL, place, str(count), moment]
    done = subprocess.run([*command, *flags(work)], capture_output=True, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, (place, done.stderr.decode()[-2000:])
    known |= {release['id'] for release in ledger(work)}
    assert len(known) <= 1, f'{place}: a resumed run recorded another release'
  again = [sys.executable, '-m', 'ldm_jax.main', *flags(work)]
  subprocess.run(again, check=True, capture_output=True, cwd=ROOT)
  assert len(ledger(work)) == 1
  assert_same_end(work, finished)


def wait_for(process, condition):
  end = time.monotonic() + 300
  while not condition() and process.poll() is None and time.monotonic() < end:
    time.sleep(0.01)


def test_a_run_killed_from_outside_ends_like_the_unbroken_one(finished, tmp_path):
  work = tmp_path / 'work'
  command = [sys.executable, '-m', 'ldm_jax.main', *flags(work)]
  saved = work / 'checkpoints' / 'adapt.new' / 'state' / '2'
  with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
    wait_for(process, saved.is_dir)
    os.kill(process.pid, signal.SIGKILL)
  assert process.returncode == -signal.SIGKILL, 'the run was over before it was killed'
  subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
  assert_same_end(work, finished)


BANDED = (
  '--config.adapt.privacy.mechanism=banded',
  '--config.adapt.privacy.num_bands=2',
  '--config.adapt.privacy.batch_size=2',
)


def test_a_killed_run_with_correlated_noise_repeats_it_bit_by_bit(
  finished, tmp_path, monkeypatch
):
  """Killed twice: the memory of the noise is in no file and is computed again."""
  names = 'ledger-private*', 'adapt', 'tensorboard', 'privacy.json'
  ignore = shutil.ignore_patterns(*names)
  work, unbroken = tmp_path / 'work', tmp_path / 'unbroken'
  for folder in (work, unbroken):
    shutil.copytree(finished, folder, ignore=ignore)
  adapt = [*BANDED, '--stages=adapt']
  command = [sys.executable, '-c', SUICIDAL]
  place = 'ldm_jax.privacy.sampling:CyclicPoissonSampler.draw'
  done = subprocess.run(
    [*command, place, '4', 'after', *flags(work), *adapt], capture_output=True, cwd=ROOT
  )
  assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
  (mine,) = ledger(work)
  assert sorted((work / 'checkpoints/adapt.new/state').iterdir())[-1].name == '2'

  def forget(steps, bands):
    raise AssertionError('a resumed run looked for another strategy')

  with monkeypatch.context() as patch:
    patch.setattr('ldm_jax.privacy.banded_matrix.optimal', forget)
    assert main.main([*flags(work), *adapt, '--debug']) == 0
  assert ledger(work) == [mine]
  # Another machine might find another strategy: the unbroken run is given this one.
  strategy = tuple(mine['strategy'])
  monkeypatch.setattr('ldm_jax.privacy.banded_matrix.optimal', lambda *_: strategy)
  assert main.main([*flags(unbroken), *adapt, '--debug']) == 0
  params = [
    checkpoint.load_params(folder / 'checkpoints' / 'adapt')
    for folder in (work, unbroken)
  ]
  jax.tree.map(np.testing.assert_array_equal, *params)
  (release,) = json.loads((work / 'privacy.json').read_text())['releases']
  assert release['mechanism'] == 'banded_gaussian' and release['num_bands'] == 2
  assert release['sampling_probability'] == pytest.approx(2 * 2 / 6)
  assert tuple(release['strategy']) == strategy
  assert 9.9 < release['epsilon'] <= 10
