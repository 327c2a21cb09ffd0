"""Alarms say what is wrong with which tensor, and are silent otherwise."""

import numpy as np
import pytest

from ldm_jax.training import alarms

RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=(4, 2, 3, 3, 3))
STD = np.full_like(MEAN, 0.3)
X = RNG.random((4, 2, 3, 3, 1))


def spoilt(values, channel, by):
  values = values.copy()
  values[..., channel] = by
  return values


def test_a_healthy_autoencoder_raises_none():
  assert not alarms.of_latents(MEAN, STD)
  assert not alarms.of_latents(MEAN)
  assert not alarms.of_reconstruction(X, X + 0.1 * RNG.random(X.shape))
  assert not alarms.of_parameters({'a/kernel': X})
  assert not alarms.of_codebook({'used': 12, 'codes': 64})
  assert not alarms.of_discriminator(0.4)


@pytest.mark.parametrize(
  ('found', 'words'),
  [
    (alarms.of_latents(spoilt(MEAN, 1, 0.7)), 'latent channel 1 collapsed'),
    (alarms.of_latents(spoilt(MEAN, 2, np.nan)), 'latent channel 2 is not finite'),
    (alarms.of_latents(spoilt(MEAN, 0, 1e5)), 'latent channel 0 blows up'),
    (
      alarms.of_latents(spoilt(MEAN, 1, 0.003 * MEAN[..., 1]), spoilt(STD, 1, 1.0)),
      'latent channel 1 collapsed to the prior',
    ),
    (alarms.of_reconstruction(X, np.full_like(X, 0.4)), 'reconstruction is constant'),
    (alarms.of_reconstruction(X, X * np.inf), 'reconstruction is not finite'),
    (alarms.of_parameters({'a/kernel': X, 'b/bias': 1e4 * X}), 'parameter b/bias'),
    (alarms.of_parameters({'a/kernel': np.nan * X}), 'parameter a/kernel'),
    (alarms.of_codebook({'used': 2, 'codes': 64}), '2 of 64 codes'),
    (alarms.of_discriminator(0.001), 'discriminator has won'),
  ],
)
def test_every_trouble_is_named_once(found, words):
  assert len(found) == 1
  assert words in found[0]
