"""Noise schedules: how much of the signal is left at every time.

Times are integers 0..T-1; time -1 is the clean latent, where alpha_bar = 1.
[Ho20] arXiv 2006.11239, [Nichol21] arXiv 2102.09672. `linear` takes evenly spaced
betas, `scaled_linear` evenly spaced square roots (Stable Diffusion), `sigmoid` a
logistic curve, `cosine` [Nichol21] Eq. 17 with betas clipped at 0.999.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

NAMES = ('linear', 'scaled_linear', 'sigmoid', 'cosine')


@flax.struct.dataclass
class Schedule:
  """A pytree of betas (T,) and alpha_bar (T,), the cumulative product of 1 - beta."""

  betas: jax.Array
  alpha_bar: jax.Array

  @property
  def num_timesteps(self):
    return self.alpha_bar.shape[0]

  def at(self, t):
    """Returns alpha_bar at integer times t of any shape; 1 at the clean time -1."""
    t = jnp.asarray(t)
    return jnp.where(t < 0, 1.0, self.alpha_bar[jnp.maximum(t, 0)])


def schedule(name='scaled_linear', num_timesteps=1000, beta_start=1e-4, beta_end=2e-2):
  """Builds the named schedule, stored in float32.

  `cosine` needs neither beta_start nor beta_end and ignores both.

  Raises:
    ValueError: an unknown name, no timesteps, or betas outside (0, 1).
  """
  if num_timesteps < 1:
    raise ValueError(
      f'A schedule needs at least 1 timestep, got {num_timesteps}; '
      'set diffusion.schedule.num_timesteps.'
    )
  if name not in NAMES:
    raise ValueError(
      f'Unknown schedule {name!r}; diffusion.schedule.name must be one of '
      f'{list(NAMES)}.'
    )
  if name != 'cosine' and not 0 < beta_start <= beta_end < 1:
    raise ValueError(
      f'Betas from {beta_start} to {beta_end} do not satisfy 0 < beta_start <= '
      'beta_end < 1; change them in diffusion.schedule.'
    )
  return from_betas(_betas(name, num_timesteps, beta_start, beta_end))


def from_betas(betas):
  """Builds a schedule from any betas (T,) in (0, 1]."""
  betas = np.asarray(betas, np.float64)
  return Schedule(
    betas=jnp.asarray(betas, jnp.float32),
    alpha_bar=jnp.asarray(np.cumprod(1 - betas), jnp.float32),
  )


def _betas(name, num_timesteps, beta_start, beta_end):
  if name == 'linear':
    return np.linspace(beta_start, beta_end, num_timesteps)
  if name == 'scaled_linear':
    return np.linspace(beta_start**0.5, beta_end**0.5, num_timesteps) ** 2
  if name == 'sigmoid':
    logistic = 1 / (1 + np.exp(-np.linspace(-6, 6, num_timesteps)))
    return logistic * (beta_end - beta_start) + beta_start
  # In float32 as in the reference, whose last betas carry its rounding (3e-5).
  u = np.arange(num_timesteps + 1, dtype=np.float32) / np.float32(num_timesteps)
  angle = (u + np.float32(0.008)) / np.float32(1.008) * np.float32(np.pi) / 2
  alpha_bar = np.cos(angle) ** 2
  return np.clip(1 - alpha_bar[1:] / alpha_bar[:-1], 0, 0.999)
