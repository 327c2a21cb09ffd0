"""A latent distribution whose best denoiser is known: N(mean, covariance)."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

MEAN = np.array([1.5, -0.5], np.float32)
COVARIANCE = np.array([[1.0, 0.6], [0.6, 0.5]], np.float32)


def denoiser(schedule, mean=MEAN, covariance=COVARIANCE):
  """Returns (z_t, t) -> E[eps | z_t] for latents (b, 2), all t equal in a batch."""

  def denoise(z_t, t):
    a_t = schedule.at(t[0])
    total = a_t * covariance + (1 - a_t) * jnp.eye(len(mean))
    centred = z_t - jnp.sqrt(a_t) * mean
    return jnp.sqrt(1 - a_t) * jnp.linalg.solve(total, centred.T).T

  return denoise


@pytest.fixture
def gaussian():
  """MEAN (2,), COVARIANCE (2, 2) and the exact denoiser of this distribution."""
  return types.SimpleNamespace(MEAN=MEAN, COVARIANCE=COVARIANCE, denoiser=denoiser)
