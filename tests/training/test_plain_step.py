"""Laws of the plain step: the mean gradient of a global batch, on any devices."""

import jax
import numpy as np
import optax
import pytest

from ldm_jax.training.mesh import make_mesh, put_examples
from ldm_jax.training.plain_step import example_keys, plain_step

pytestmark = pytest.mark.usefixtures('users_convolutions')

KEY = jax.random.key(0)


def steps(toy, start, params, patients, mesh, optimizer, num=3):
  step = plain_step(toy[1], optimizer, mesh, ema_decay=0.9)
  current = start(params, optimizer, mesh)
  for number in range(num):
    batch = jax.tree.map(lambda leaf, n=number: np.roll(leaf, n, 0)[:8], patients)
    current, metrics = step(current, {}, put_examples(mesh, batch), KEY)
  return current, metrics


@pytest.mark.parametrize(('data', 'fsdp'), [(4, 1), (2, 2), (1, 4)])
def test_four_devices_equal_one(toy, start, params, patients, difference, data, fsdp):
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))
  one, metrics_one = steps(toy, start, params, patients, make_mesh(1), optimizer)
  mesh = make_mesh(data, fsdp)
  four, metrics_four = steps(toy, start, params, patients, mesh, optimizer)
  assert difference(one, four) < 1e-5
  assert difference(metrics_one, metrics_four) < 1e-5


def test_the_gradient_of_a_batch_is_the_mean_over_its_examples(
  toy, start, params, patients, difference
):
  patient_loss, example_losses = toy
  mesh = make_mesh(4)
  step = plain_step(example_losses, optax.sgd(1.0), mesh, ema_decay=0.9)
  batch = jax.tree.map(lambda leaf: leaf[:8], patients)
  after, metrics = step(
    start(params, optax.sgd(1.0), mesh), {}, put_examples(mesh, batch), KEY
  )
  keys, losses, gradients = example_keys(KEY, 0, 8), [], []
  for i in range(8):
    example = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
    loss, gradient = jax.value_and_grad(patient_loss)(params, {}, example, keys[i])
    losses.append(loss)
    gradients.append(gradient)
  mean = jax.tree.map(lambda *leaves: sum(leaves) / 8, *gradients)
  expected = jax.tree.map(lambda value, slope: value - slope, params, mean)
  assert difference(after.trained, expected) < 1e-5
  assert float(metrics['loss']) == pytest.approx(np.mean(losses), rel=1e-5)
  assert int(after.step) == 1


def test_frozen_parameters_steer_the_loss_and_stay(toy, start, params, patients):
  mesh, optimizer = make_mesh(2), optax.sgd(0.1)
  step = plain_step(toy[1], optimizer, mesh, ema_decay=0.9)
  frozen = {'unet/conv/s': params.pop('unet/conv/s')}
  batch = put_examples(mesh, jax.tree.map(lambda leaf: leaf[:8], patients))
  after, one = step(start(params, optimizer, mesh), frozen, batch, KEY)
  other = {'unet/conv/s': 2 * frozen['unet/conv/s']}
  _, two = step(start(params, optimizer, mesh), other, batch, KEY)
  assert set(after.trained) == set(after.ema) == set(params)
  assert float(one['loss']) != float(two['loss'])


def test_keys_differ_between_examples_and_between_steps():
  keys = [*example_keys(KEY, 0, 8), *example_keys(KEY, 1, 8)]
  assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 16


def test_a_key_depends_on_the_position_and_not_on_the_size_of_the_batch():
  few, many = example_keys(KEY, 5, 4), example_keys(KEY, 5, 8)
  np.testing.assert_array_equal(jax.random.key_data(few), jax.random.key_data(many[:4]))
