"""A method with a new token through the pipeline: what it reads, moves and keeps.

Custom Diffusion with regularisation has everything the three methods have: a token,
parts of the network, class samples.
"""

import pathlib
import re
import shutil

import numpy as np
import pytest

from ldm_jax import main
from ldm_jax.config import parsing
from ldm_jax.models.conditions import new_token
from ldm_jax.pipeline import private_budget, starting_point
from ldm_jax.pipeline.run import Run
from ldm_jax.synthesis import system
from ldm_jax.training import checkpoint
from ldm_jax.training.state import flatten
from ldm_jax.workfolder import WorkFolder

MICRO = pathlib.Path(__file__).parents[1] / 'micro.py'
OVERRIDES = {
  'adapt.method': 'custom_diffusion',
  'adapt.prior.weight': 1.0,
  'adapt.prior.num': 4,
  'adapt.prior.batch_size': 4,
  'adapt.learning_rate': 0.01,
  'adapt.steps': 3,
  'adapt.privacy': None,
}


def adapt(work, *more):
  """Runs the stage adapt; returns the exit status."""
  flags = [f'--config.{key}={value}' for key, value in OVERRIDES.items()]
  command = [f'--config={MICRO}', f'--workdir={work}', '--debug', '--stages=adapt']
  return main.main([*command, *flags, *more])


@pytest.fixture(scope='module')
def work(finished, tmp_path_factory):
  """The finished micro run, adapted anew; the first attempt ends before a step."""
  folder = tmp_path_factory.mktemp('word') / 'work'
  ignore = shutil.ignore_patterns('ledger-*', 'privacy.json', 'adapt')
  shutil.copytree(finished, folder, ignore=ignore)
  with pytest.MonkeyPatch.context() as patch:

    def stop(*args, **kwargs):
      raise OSError('stopped before the first step')

    patch.setattr(private_budget, 'record_unprotected', stop)
    assert adapt(folder) == 1
    kept = folder / 'checkpoints' / 'adapt.new' / starting_point.CLASS_SAMPLES
    kept.with_name('first').write_bytes(kept.read_bytes())

    patch.undo()
    patch.setattr(
      starting_point, '_generated', lambda *args: pytest.fail('drawn again')
    )
    assert adapt(folder) == 0
  return folder


@pytest.fixture(scope='module')
def base(work):
  return flatten(checkpoint.load_params(work / 'checkpoints' / 'diffusion'))


def opened(work, **changes):
  config = parsing.override(parsing.load(str(MICRO)), {**OVERRIDES, **changes})
  return Run(config, WorkFolder(work))


def test_only_keys_values_and_the_token_move_all_else_is_bit_identical(work, base):
  """This is what samples are drawn from: the network with its word."""
  run = opened(work)
  found = flatten(system.denoiser_params(run.config, run.work, is_adapted=True))
  word = {path for path in found if path.startswith(new_token.PREFIX)}
  assert word == {'concept/tokens', 'concept/embedding'} == set(found) - set(base)
  reads = r'/attn2/to_[kv]/kernel$'
  for path, leaf in base.items():
    assert np.array_equal(found[path], leaf) != bool(re.search(reads, path)), path


def test_nothing_that_did_not_move_is_kept_nor_the_class_samples(work, base):
  kept = flatten(checkpoint.load_params(work / 'checkpoints' / 'adapt'))
  moves = re.compile(r'/attn2/to_[kv]/kernel$|^concept/')
  assert kept and all(moves.search(path) for path in kept)
  assert not [path for path in kept if path.startswith('prior')]


def test_class_samples_are_public_and_drawn_once_a_run(work, base):
  """Without a private cohort at hand they come out the same."""
  folder = work / 'checkpoints' / 'adapt'
  kept = (folder / starting_point.CLASS_SAMPLES).read_bytes()
  assert kept == (folder / 'first').read_bytes(), 'the resumed run has the same'
  run = opened(work)
  del run.prepared['private']
  params = checkpoint.load_params(work / 'checkpoints' / 'diffusion')
  again = starting_point.class_samples(run, params)
  with np.load(folder / starting_point.CLASS_SAMPLES) as found:
    assert found['z'].shape[0] == 4 and np.std(found['z']) > 0.1
    for name in ('z', 'conditions'):
      np.testing.assert_array_equal(again[f'prior/{name}'], found[name])


def test_samples_of_the_class_may_be_those_of_the_public_cohort(work):
  run = opened(work, **{'adapt.prior.source': 'public', 'adapt.prior.num': 12})
  found = starting_point.class_samples(run, {})
  public = run.splits['public']
  latents = run.latents(public)
  assert len(latents) == 12, 'each of them once'
  for z, condition in zip(found['prior/z'], found['prior/conditions'], strict=True):
    (row,) = np.flatnonzero((latents == z).all(axis=(1, 2, 3, 4)))
    np.testing.assert_array_equal(condition, public.attributes[row])


def test_the_token_of_the_class_is_the_mean_of_what_the_conditions_say(work):
  run = opened(work)
  params = checkpoint.load_params(work / 'checkpoints' / 'diffusion')
  found = starting_point.class_token(run, params)
  attributes = run.splits['public'].attributes
  context, _ = run.denoiser.apply({'params': params}, attributes, method='describe')
  np.testing.assert_allclose(found, np.mean(context, (0, 1)), atol=1e-6)


def test_a_method_that_this_network_cannot_have_is_found_before_training(
  tmp_path, capsys
):
  flags = [f'--config.{key}={value}' for key, value in OVERRIDES.items()]
  without = "--config.diffusion.conditioner.by=('embedding',)"
  command = [f'--config={MICRO}', f'--workdir={tmp_path / "w"}', *flags, without]
  assert main.main([*command, '--stages=prepare,autoencoder,adapt']) != 0
  error = capsys.readouterr().err
  assert "'custom_diffusion'" in error and 'diffusion.conditioner.by' in error
  assert not (tmp_path / 'w' / 'checkpoints' / 'autoencoder').exists()
