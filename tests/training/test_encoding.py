"""Laws of encoding: batches change nothing, normalisation is undone."""

import concurrent.futures
import threading
import types

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import processes
from ldm_jax.training import encoding

X = np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype(np.float32)


class Halves(nn.Module):
  """Encodes by a factor that is its parameter, decodes by the inverse."""

  is_gaussian: bool = True
  num_labels: int = 0

  def setup(self):
    self.factor = self.param('factor', nn.initializers.ones, ())

  def encode(self, x):
    return x * self.factor, jnp.full(x.shape, 0.5)

  def decode(self, z):
    return z / self.factor


@pytest.mark.parametrize('batch_size', [1, 2, 5, 8])
def test_batches_of_one_shape_give_what_the_whole_array_gives(batch_size):
  shapes = set()

  def double(x):
    shapes.add(x.shape)
    return 2 * x

  found = encoding.apply_in_batches(double, X, batch_size)
  np.testing.assert_array_equal(found, 2 * X)
  assert shapes == {(batch_size, 4, 4, 1)}


def test_a_split_is_encoded_in_order_and_tells_how_far_it_is():
  class Split(types.SimpleNamespace):
    def __len__(self):
      return len(X)

  told = []
  split = Split(volumes=lambda chosen: X[chosen])
  found = encoding.encode_split(lambda x: -x, split, 2, told.append)
  np.testing.assert_array_equal(found, -X)
  assert told == [2, 4, 5]


def test_normalised_latents_are_denormalised_to_themselves():
  mean, std = np.float32([2.0]), np.float32([3.0])
  z = encoding.normalise(X, mean, std)
  np.testing.assert_allclose(z, (X - 2) / 3, rtol=1e-6)
  np.testing.assert_allclose(encoding.denormalise(z, mean, std), X, atol=1e-6)


def test_a_trained_autoencoder_encodes_means_and_on_request_variances():
  trained = encoding.TrainedAutoencoder(Halves(), {'factor': jnp.float32(4.0)})
  np.testing.assert_allclose(trained.encode(X), 4 * X)
  np.testing.assert_allclose(trained.decode(trained.encode(X)), X, rtol=1e-6)
  mean, logvar = np.split(np.asarray(trained.posterior(X)), 2, axis=-1)
  np.testing.assert_allclose(mean, 4 * X)
  np.testing.assert_allclose(logvar, np.log(0.25), rtol=1e-6)


def test_log_variances_of_an_autoencoder_without_them_are_refused():
  module = Halves(is_gaussian=False)
  trained = encoding.TrainedAutoencoder(module, {'factor': jnp.float32(4.0)})
  with pytest.raises(ValueError, match=r'config\.encode\.logvar=False'):
    _ = trained.posterior


@pytest.mark.parametrize('count', [2, 3, 4])
@pytest.mark.parametrize(('num_rows', 'batch_size'), [(1, 2), (7, 2), (12, 3)])
def test_processes_share_batches_out_and_all_get_them_in_order(
  monkeypatch, count, num_rows, batch_size
):
  computed, parts = [], [None] * count
  own, turn = threading.local(), threading.Barrier(count)

  def gather(part):
    parts[own.number] = part
    turn.wait(timeout=60)
    together = np.stack(parts)
    turn.wait(timeout=60)
    return together

  def square(rows):
    computed.append(tuple(rows))
    return np.stack([rows**2, rows], 1)

  run = lambda: encoding.in_shared_batches(square, num_rows, batch_size)
  whole = run()
  np.testing.assert_array_equal(whole[:, 0], np.arange(num_rows) ** 2)
  computed.clear()
  monkeypatch.setattr(processes, 'count', lambda: count)
  monkeypatch.setattr(processes, 'number', lambda: own.number)
  monkeypatch.setattr(encoding, 'gather_parts', gather)

  def process(number):
    own.number = number
    return run()

  with concurrent.futures.ThreadPoolExecutor(count) as pool:
    results = list(pool.map(process, range(count)))
  assert {row for rows in computed for row in rows} == set(range(num_rows))
  assert len(computed) == count * -(-num_rows // (batch_size * count))
  for result in results:
    np.testing.assert_array_equal(result, whole)
