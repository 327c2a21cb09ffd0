"""Adapters through the pipeline: what moves, what is kept, what is put together."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from ldm_jax import main
from ldm_jax.config import parsing
from ldm_jax.models import adapters
from ldm_jax.synthesis import system
from ldm_jax.training import checkpoint
from ldm_jax.training.state import flatten
from ldm_jax.workfolder import WorkFolder

MICRO = pathlib.Path(__file__).parents[1] / 'micro.py'
OVERRIDES = {
  'adapt.method': 'lora',
  'adapt.ema_decay': (0.9, 0.2),
  'adapt.augment.multiplicity': 2,
  'adapt.learning_rate': 0.01,
}


def run(work, *more):
  """Runs the stage adapt; returns the exit status."""
  flags = [f'--config.{key}={value}' for key, value in OVERRIDES.items()]
  command = [f'--config={MICRO}', f'--workdir={work}', '--debug', '--stages=adapt']
  return main.main([*command, *flags, *more])


@pytest.fixture(scope='module')
def work(finished, tmp_path_factory):
  """The finished micro run, adapted anew by adapters alone."""
  folder = tmp_path_factory.mktemp('lora') / 'work'
  ignore = shutil.ignore_patterns('ledger-*', 'privacy.json', 'adapt')
  shutil.copytree(finished, folder, ignore=ignore)
  assert run(folder) == 0
  return folder


def whole(folder, **more):
  """Flat parameters of the network that samples are drawn from."""
  words = {**OVERRIDES, **more}
  config, place = parsing.override(parsing.load(str(MICRO)), words), WorkFolder(folder)
  return flatten(system.denoiser_params(config, place, is_adapted=True))


def test_only_the_kernels_with_adapters_change_all_else_is_bit_identical(work):
  base = flatten(checkpoint.load_params(work / 'checkpoints' / 'diffusion'))
  found = whole(work)
  targets = r'/(to_[qkv]|out_proj)/kernel$'
  assert set(found) == set(base)
  for path, leaf in base.items():
    assert np.array_equal(found[path], leaf) != bool(re.search(targets, path)), path


def test_only_adapters_are_kept(work):
  kept = flatten(checkpoint.load_params(work / 'checkpoints' / 'adapt'))
  names = adapters.DOWN, adapters.UP, adapters.SCALE
  assert all(path.endswith(names) for path in kept)
  size = lambda folder: sum(
    path.stat().st_size for path in folder.rglob('*') if path.is_file()
  )
  public = size(work / 'checkpoints' / 'diffusion' / 'params')
  # Adapters twice, and their optimiser's state.
  assert size(work / 'checkpoints' / 'adapt') < public


def test_another_average_is_sampled_without_adapting_again(work, capsys):
  assert not np.array_equal(
    *(
      whole(work, **{'sample.ema_decay': decay})['conditioner/attention/to_v/kernel']
      for decay in (0.9, 0.2)
    )
  )
  assert run(work, '--config.sample.ema_decay=0.2') == 0
  assert 'adapt: up to date' in capsys.readouterr().out


def test_adapters_of_an_earlier_network_are_refused(work, tmp_path):
  shutil.copytree(work, tmp_path / 'work')
  done = tmp_path / 'work' / 'checkpoints' / 'diffusion' / 'done.json'
  done.write_text(json.dumps({'fingerprint': 'another'}))
  with pytest.raises(ValueError, match=r'run again after adapt.*--stages=adapt'):
    whole(tmp_path / 'work')


@pytest.mark.parametrize(
  ('key', 'value', 'words'),
  [
    ('sample.ema_decay', 0.5, r'one of adapt\.ema_decay'),
    ('adapt.ema_decay', (1.0,), 'decays in'),
    ('adapt.augment.multiplicity', 0, 'from 1 up'),
    ('adapt.augment.shift', (1, 1), 'three numbers'),
    ('adapt.lora.rank', 0, 'above 0'),
    ('adapt.lora.targets', (), 'regular expression'),
    ('adapt.optimizer', 'lion', 'adam, sgd'),
  ],
)
def test_options_that_cannot_be_are_found_before_anything_runs(
  tmp_path, capsys, key, value, words
):
  flags = [
    f'--config={MICRO}',
    f'--workdir={tmp_path / "w"}',
    f'--config.{key}={value}',
  ]
  assert main.main(flags) == 2
  error = capsys.readouterr().err
  assert f'config.{key}' in error and re.search(words, error)
  assert not (tmp_path / 'w').exists()
