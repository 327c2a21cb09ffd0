"""Rules of clipping: squared norms of the leaves -> factors that keep within C.

`constant`: min(1, C / ||g||), one factor a patient. [Abadi16]
`normalised`: C / (||g|| + C / 100), so that C is only a unit of length. [Bu23]
`per_layer`: min(1, C_l / ||g_l||) for each of L leaves, C_l = C / sqrt(L): the squares
  of the L parts sum to at most C^2.
`adaptive`: constant clipping at a C that follows a quantile of the norms. [Andrew21]

Adaptive clipping adds one coordinate to a patient's contribution, the bit b = 1 if its
gradient is within the bound and -1 if not: the contribution is (g, BIT_SHARE C b) with
g clipped to C sqrt(1 - BIT_SHARE^2), together of norm at most C. So it is one Gaussian
release of the same noise multiplier: the bit costs no epsilon of its own, the gradient
has a little less room instead (half a percent). The next C comes from the noisy sum of
bits, which is post-processing.

A patient whose gradient is not finite contributes zero, its bit included.

[Abadi16] Deep Learning with Differential Privacy, CCS 2016.
[Andrew21] Differentially Private Learning with Adaptive Clipping, NeurIPS 2021.
[Bu23] Automatic Clipping, NeurIPS 2023.
"""

import math

import jax
import jax.numpy as jnp

from ldm_jax.privacy import checks
from ldm_jax.types import PyTree

RULES, check = checks.CLIPPING, checks.check_clipping  # there, where jax is not needed
MARGIN = 1e-6  # relative; the float32 norm of 3e7 entries errs by about 1e-7
SMALLEST = 0.01  # of C: normalised gradients smaller than this count less
BIT_SHARE = 0.1  # noise of the mean bit is then sigma / (0.1 B) a step
ADAPTATION = 0.2  # rate of the quantile's descent [Andrew21]
RANGE = 1e6  # the adaptive C stays within this factor of the first


def scales(
  squares: PyTree, clip_norm: float | jax.Array, keep: jax.Array, rule: str = 'constant'
) -> tuple[PyTree, jax.Array, jax.Array]:
  """The factors of p patients' gradients.

  Args:
    squares: tree of squared norms (p,), one leaf for each leaf of the gradient.
    clip_norm: C > 0.
    keep: (p,) bool, False for padded rows.
    rule: one of RULES.

  Returns:
    (tree of factors (p,) like squares, sum of BIT_SHARE C b over those kept, keep (p,)
    without the patients whose gradient is not finite).
  """
  leaves, structure = jax.tree.flatten(squares)
  norm = jnp.sqrt(sum(leaves))
  # NaN and infinite entries (and overflow) all end in a norm that is not finite.
  keep = jnp.isfinite(norm) & keep
  bound = (1 - MARGIN) * clip_norm
  if rule == 'adaptive':
    bound = bound * math.sqrt(1 - BIT_SHARE**2)
  if rule == 'per_layer':
    factors = [_within(jnp.sqrt(s), bound / math.sqrt(len(leaves))) for s in leaves]
  elif rule == 'normalised':
    factors = [bound / (norm + SMALLEST * clip_norm)] * len(leaves)
  else:
    factors = [_within(norm, bound)] * len(leaves)
  bits = BIT_SHARE * clip_norm * jnp.where(norm <= bound, 1.0, -1.0)
  return (
    jax.tree.unflatten(structure, factors),
    jnp.sum(jnp.where(keep, bits, 0.0)),
    keep,
  )


def next_clip_norm(
  clip_norm: jax.Array, mean_bit: jax.Array, quantile: float, first: float
) -> jax.Array:
  """C of the next step, by one step down the quantile's loss. [Andrew21, Eq. 4]

  Args:
    clip_norm: C of this step.
    mean_bit: the sum of BIT_SHARE C b with noise, over the expected batch.
    quantile: share of patients whose gradients should lie within C.
    first: C of the first step.
  """
  share = jnp.clip((mean_bit / (BIT_SHARE * clip_norm) + 1) / 2, 0.0, 1.0)
  moved = clip_norm * jnp.exp(-ADAPTATION * (share - quantile))
  return jnp.clip(moved, first / RANGE, first * RANGE)


def _within(norm, bound):
  return jnp.minimum(1.0, bound / jnp.where(norm > 0, norm, 1.0))
