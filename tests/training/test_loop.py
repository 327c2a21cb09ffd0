"""Laws of the loop: it resumes bit for bit, stops at what is not finite, and logs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.data.batching import epoch_batch
from ldm_jax.privacy import mechanisms, secret_key
from ldm_jax.privacy.sampling import PoissonSampler
from ldm_jax.training import checkpoint, loop, private_run, private_step, state
from ldm_jax.training.mesh import make_mesh, put_examples
from ldm_jax.training.plain_step import plain_step

KEY = jax.random.key(0)
OPTIMIZER = optax.adam(1e-2)


class Interruption(Exception):
  """Stands in for anything that ends a run from outside."""


@functools.cache
def plain(example_losses):
  return plain_step(example_losses, OPTIMIZER, make_mesh(2), 0.9)


COMMON = {
  'num_patients': 12,
  'batch_size': 4,
  'steps': 7,
  'clip_norm': 1.0,
  'noise_multiplier': 1.1,
}
BANDED = {**COMMON, 'num_bands': 3, 'strategy': (0.8, 0.48, 0.36)}
SCHEMES = {
  'poisson': mechanisms.Poisson(**COMMON),
  'banded': mechanisms.Banded(**BANDED),
  'adaptive': mechanisms.Banded(**BANDED, clipping='adaptive'),
}


@functools.cache
def private_(patient_loss, scheme):
  return private_step.private_step(
    patient_loss,
    OPTIMIZER,
    make_mesh(2),
    0.9,
    scheme,
  )


@pytest.fixture
def train_plainly(toy, patients, params):
  def train(folder, num_steps=7, break_at=None, log=lambda **event: None):
    step = plain(toy[1])

    def take_step(current, number):
      if number == break_at:
        raise Interruption
      chosen = epoch_batch(12, 4, 0, number)
      batch = {name: leaf[chosen] for name, leaf in patients.items()}
      return step(current, {}, put_examples(make_mesh(2), batch), KEY)

    return loop.train(
      take_step,
      state.create(jax.tree.map(jnp.copy, params), OPTIMIZER),
      num_steps,
      mesh=make_mesh(2),
      folder=folder,
      log=log,
      title='test',
      log_every=2,
      checkpoint_every=2,
    )

  return train


@pytest.fixture
def train_privately(toy, patients, params, monkeypatch):
  def train(folder, break_at=None, log=lambda **event: None, scheme=SCHEMES['poisson']):
    draw = PoissonSampler.draw

    def broken(sampler, number):
      if number == break_at:
        raise Interruption
      return draw(sampler, number)

    monkeypatch.setattr(PoissonSampler, 'draw', broken)
    try:
      return private_run.take_steps(
        private_(toy[0], scheme),
        patients,
        range(12),
        4,
        state.create(jax.tree.map(jnp.copy, params), OPTIMIZER),
        {},
        mesh=make_mesh(2),
        key=KEY,
        secret_key=secret_key.new_noise_key(0),
        folder=folder,
        log=log,
        title='test',
        log_every=2,
        checkpoint_every=2,
      )
    finally:
      monkeypatch.setattr(PoissonSampler, 'draw', draw)

  return train


@pytest.fixture(params=['plain', *SCHEMES])
def train(request):
  """Runs 7 steps with a checkpoint every 2, plain or private."""
  if request.param == 'plain':
    return request.getfixturevalue('train_plainly')
  train = request.getfixturevalue('train_privately')
  return functools.partial(train, scheme=SCHEMES[request.param])


@pytest.mark.parametrize('breaks', [(1,), (2, 5), (4, 4, 6)])
def test_an_interrupted_run_ends_in_the_same_bits(train, tmp_path, breaks):
  unbroken = train(tmp_path / 'unbroken')
  for number in breaks:
    with pytest.raises(Interruption):
      train(tmp_path / 'broken', break_at=number)
  jax.tree.map(np.testing.assert_array_equal, train(tmp_path / 'broken'), unbroken)


def test_a_finished_run_takes_no_further_step(train, tmp_path):
  first = train(tmp_path)
  again = train(tmp_path, break_at=0)
  jax.tree.map(np.testing.assert_array_equal, again, first)


def test_the_log_has_every_second_step_and_the_last(train_plainly, tmp_path):
  events = []
  train_plainly(tmp_path, log=lambda **event: events.append(event))
  assert [event['step'] for event in events] == [2, 4, 6, 7]
  assert all(event['loss'] > 0 for event in events)
  assert all(event['steps_per_second'] > 0 for event in events)


def test_the_log_of_a_private_run_holds_nothing_about_the_data(
  train_privately, tmp_path
):
  events = []
  train_privately(tmp_path, log=lambda **event: events.append(event))
  assert {key for event in events for key in event} == {'step', 'steps_per_second'}


def run_toy(folder, metric=0.0, leaf=0.0, bad_from=3):
  """Adds 1 a step; from step `bad_from` on, adds the given values instead."""

  def take_step(current, number):
    bad = number >= bad_from
    trained = {'unet/w': current.trained['unet/w'] + (leaf if bad else 1.0)}
    new = current.replace(step=current.step + 1, trained=trained)
    return new, {'loss': metric if bad else 1.0}

  return loop.train(
    take_step,
    state.create({'unet/w': jnp.zeros(3)}, OPTIMIZER),
    6,
    mesh=make_mesh(1),
    folder=folder,
    log=lambda **event: None,
    title='diffusion',
    log_every=1,
    checkpoint_every=2,
  )


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_metric_that_is_not_finite_is_named_and_the_checkpoint_kept(tmp_path, bad):
  words = rf'diffusion: loss became {bad} at step 4.*lower the learning rate'
  with pytest.raises(ValueError, match=words):
    run_toy(tmp_path, metric=bad)
  assert [path.name for path in (tmp_path / 'state').iterdir()] == ['2']
  np.testing.assert_array_equal(run_toy(tmp_path, bad_from=9).trained['unet/w'], 6.0)


def test_a_parameter_that_is_not_finite_is_named_and_never_saved(tmp_path):
  with pytest.raises(ValueError, match='parameter unet/w is not finite at step 4'):
    run_toy(tmp_path, leaf=np.nan)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.close()
  assert [path.name for path in (tmp_path / 'state').iterdir()] == ['2']
