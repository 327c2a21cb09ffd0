"""Clipping rules: squared norms of the leaves -> factors that bound one contribution.

`constant`: min(1, clip_norm / ||g||), one factor per patient. [Abadi16]
`normalised`: clip_norm / (||g|| + clip_norm / 100), so that clip_norm only sets the
  unit of the gradients. [Bu23]
`per_layer`: min(1, bound / ||g_l||) for each of the L leaves g_l, with
  bound = clip_norm / sqrt(L): the squares of the L norms sum to at most clip_norm^2.
`adaptive`: constant clipping with a clip_norm that follows a quantile of the gradient
  norms. [Andrew21]

Adaptive clipping adds one coordinate to a patient's contribution: bit = 1 if its
gradient is within the bound, else -1. The contribution is (g, BIT_SHARE clip_norm bit)
with g clipped to clip_norm sqrt(1 - BIT_SHARE^2), so its total norm is at most
clip_norm. It is therefore one Gaussian release with the same noise multiplier: the bit
costs no additional epsilon, but the bound for the gradient is half a percent smaller.
The next clip_norm is computed from the noisy sum of bits, which is post-processing.

A patient whose gradient is not finite contributes zero, including its bit.

Every rule bounds by (1 - MARGIN) clip_norm, so that rounding takes no sum of clipped
patients beyond their number times clip_norm.

[Abadi16] Deep Learning with Differential Privacy, CCS 2016.
[Andrew21] Differentially Private Learning with Adaptive Clipping, NeurIPS 2021.
[Bu23] Automatic Clipping, NeurIPS 2023.
"""

import math

import jax
import jax.numpy as jnp

from ldm_jax.privacy import checks
from ldm_jax.types import PyTree

# Defined there, because checking a config must not import jax.
RULES, check = checks.CLIPPING, checks.check_clipping
# Relative. The float32 norm of 3e7 entries errs by about 1e-7. The sum over n patients
# is rounded once (`compensated_sum`), by up to 2^-24 of its norm, so the sums with and
# without a patient differ by up to n 2^-23 more: 2.0e-3 for 16,384 patients of one
# direction. The rest is for last bits of others' gradients (docs/privacy.md).
MARGIN = 2.5e-3
SMALLEST = 0.01  # of clip_norm: normalised gradients well below this are scaled down
BIT_SHARE = 0.1  # the noise of the mean bit is sigma / (BIT_SHARE expected_batch)
ADAPTATION = 0.2  # learning rate of the quantile estimate [Andrew21]
RANGE = 1e6  # an adaptive clip_norm stays within this factor of the first


def scales(
  squares: PyTree, clip_norm: float | jax.Array, keep: jax.Array, rule: str = 'constant'
) -> tuple[PyTree, jax.Array, jax.Array]:
  """The clipping factors of p patients' gradients.

  Args:
    squares: tree of squared norms (p,), one leaf for each leaf of the gradient.
    clip_norm: largest L2 norm of a contribution, > 0.
    keep: (p,) bool, False for padded rows.
    rule: one of RULES.

  Returns:
    (factors, bits, keep): tree of factors (p,) like squares; sum of
    BIT_SHARE (1 - MARGIN) clip_norm bit over the kept patients; keep (p,), False also
    for patients whose gradient is not finite.
  """
  leaves, structure = jax.tree.flatten(squares)
  norm = jnp.sqrt(sum(leaves))
  # NaN, infinite entries and overflow all give a norm that is not finite.
  keep = jnp.isfinite(norm) & keep
  unit = bound = (1 - MARGIN) * clip_norm
  if rule == 'adaptive':
    bound = unit * math.sqrt(1 - BIT_SHARE**2)
  if rule == 'per_layer':
    factors = [_within(jnp.sqrt(s), bound / math.sqrt(len(leaves))) for s in leaves]
  elif rule == 'normalised':
    factors = [bound / (norm + SMALLEST * clip_norm)] * len(leaves)
  else:
    factors = [_within(norm, bound)] * len(leaves)
  bits = BIT_SHARE * unit * jnp.where(norm <= bound, 1.0, -1.0)
  return (
    jax.tree.unflatten(structure, factors),
    jnp.sum(jnp.where(keep, bits, 0.0)),
    keep,
  )


def next_clip_norm(
  clip_norm: jax.Array, mean_bit: jax.Array, quantile: float, first: float
) -> jax.Array:
  """clip_norm of the next step, by one step on the quantile loss. [Andrew21, Eq. 4]

  Args:
    clip_norm: of this step.
    mean_bit: noisy sum of the bits of `scales`, divided by the expected batch.
    quantile: share of patients whose gradients should be within the bound.
    first: clip_norm of the first step.
  """
  unit = BIT_SHARE * (1 - MARGIN) * clip_norm
  share = jnp.clip((mean_bit / unit + 1) / 2, 0.0, 1.0)
  moved = clip_norm * jnp.exp(-ADAPTATION * (share - quantile))
  return jnp.clip(moved, first / RANGE, first * RANGE)


def _within(norm, bound):
  return jnp.minimum(1.0, bound / jnp.where(norm > 0, norm, 1.0))
