"""A run that is killed continues, and ends where the unbroken run ends: bit for bit.

The process is killed with SIGKILL, which no code of it can answer, at named moments
and once from outside. The unbroken run is the session's `finished`.
"""

import json
import pathlib
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from ldm_jax import main
from ldm_jax.training import checkpoint
from tests import killed

ROOT = pathlib.Path(__file__).resolve().parent.parent
STAGES = 'prepare,autoencoder,encode,diffusion,adapt'
TRAINED = ('autoencoder', 'diffusion', 'adapt')
# Each next run resumes what the one before left. A path is waited for from outside.
MOMENTS = (
  ('ldm_jax.atomic:write_bytes', 5, 'before'),  # prepare
  ('ldm_jax.training.checkpoint:Checkpoints.save', 2, 'before'),  # autoencoder
  ('ldm_jax.training.checkpoint:save_params', 1, 'before'),
  # diffusion, between checkpoints
  ('ldm_jax.pipeline.pretrain:epoch_batch', 4, 'before'),
  ('ldm_jax.privacy.ledger:Ledger.record_all', 1, 'before'),  # adapt: a key, no release
  ('ldm_jax.privacy.ledger:Ledger.record_all', 1, 'after'),  # a release, no step
  'checkpoints/adapt.new/state/2',  # from outside, as soon as it is there
  ('ldm_jax.privacy.sampling:PoissonSampler.draw', 2, 'after'),
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


def unspent(finished, folder):
  """A copy of the unbroken run before its stage `adapt`."""
  names = 'ledger-private*', 'adapt', 'tensorboard', 'privacy.json'
  return shutil.copytree(finished, folder, ignore=shutil.ignore_patterns(*names))


def killed_from_outside(work, errors, path):
  """As `killed.run`, by this process as soon as the path exists."""
  process, end = killed.start(flags(work), errors), time.monotonic() + 300
  while not path.exists() and process.is_alive() and time.monotonic() < end:
    time.sleep(0.01)
  process.kill()
  process.join()
  return process.exitcode, errors.read_text()[-2000:]


def test_a_run_killed_at_every_kind_of_moment_ends_like_the_unbroken_one(
  finished, tmp_path
):
  work, known = tmp_path / 'work', set()
  for moment in MOMENTS:
    if isinstance(moment, str):
      status, said = killed_from_outside(work, tmp_path / 'said', work / moment)
    else:
      status, said = killed.run(flags(work), tmp_path / 'said', moment)
    assert status == -signal.SIGKILL, (moment, said)
    known |= {release['id'] for release in ledger(work)}
    assert len(known) <= 1, f'{moment}: a resumed run recorded another release'
  assert main.main(flags(work)) == 0
  assert len(ledger(work)) == 1
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
  work, unbroken = (unspent(finished, tmp_path / name) for name in ('work', 'other'))
  adapt = [*BANDED, '--stages=adapt']
  place = 'ldm_jax.privacy.sampling:CyclicPoissonSampler.draw'
  moment = (place, 4, 'after')
  status, said = killed.run([*flags(work), *adapt], tmp_path / 'said', moment)
  assert status == -signal.SIGKILL, said
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
