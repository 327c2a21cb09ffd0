"""Laws of encoding in batches: one shape, every row once, normalised and back."""

import types

import numpy as np

from ldm_jax.training import encoding


def test_every_row_comes_out_once_and_all_calls_have_one_shape():
  array, shapes = np.arange(14.0).reshape(7, 2), []

  def double(x):
    shapes.append(x.shape)
    return 2 * x

  np.testing.assert_array_equal(encoding.apply_in_batches(double, array, 3), 2 * array)
  assert set(shapes) == {(3, 2)}


def test_a_split_is_read_and_encoded_batch_by_batch():
  volumes, read, progress = np.arange(10.0).reshape(5, 2), [], []

  class Split:
    def __len__(self):
      return 5

    def volumes(self, chosen):
      read.append(chosen.tolist())
      return volumes[chosen]

  found = encoding.encode_split(lambda x: x + 1, Split(), 2, progress.append)
  np.testing.assert_array_equal(found, volumes + 1)
  assert read == [[0, 1], [2, 3], [4]] and progress == [2, 4, 5]


def test_normalised_latents_come_back_and_have_mean_zero_and_deviation_one():
  z = np.random.default_rng(0).normal(3, 2, (500, 4, 2)).astype(np.float32)
  latent = types.SimpleNamespace(mean=z.mean((0, 1)), std=z.std((0, 1)))
  normal = encoding.normalise(z, latent.mean, latent.std)
  np.testing.assert_allclose(np.mean(normal, (0, 1)), 0, atol=1e-3)
  np.testing.assert_allclose(np.std(normal, (0, 1)), 1, atol=1e-3)
  back = encoding.denormalise(normal, latent.mean, latent.std)
  np.testing.assert_allclose(back, z, atol=1e-5)
