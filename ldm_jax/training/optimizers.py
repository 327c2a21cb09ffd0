"""Optimisers of the public trainings, for packed parameters: Adam and Muon.

[Jordan24] Muon, https://kellerjordan.github.io/posts/muon; [Liu25] its scale that
matches Adam's, arXiv 2502.16982; `optax.contrib.muon` has both.

Newton and Schulz's iteration X <- X (a I + b A + c A^2), A = X^T X, multiplies X by
polynomials of A, which commute. It is thus run on A and on the product P of the
polynomials, square matrices of the smaller side: X is needed twice, not ten times, and
matrices of any height iterate together. `optax.contrib.muon` takes a fifth of a step on
a CPU and half of its compilation; this is a tenth of either (docs/recipe.md).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ldm_jax.training.packing import Packing
from ldm_jax.training.state import clipped_adam, learning_rates
from ldm_jax.types import Array

# Root mean square of an update in learning rates: that of Adam. [Liu25] Section 2.2
ADAMS_SCALE = 0.2
# Momentum, coefficients and iterations of [Jordan24].
BETA, COEFFICIENTS, NUM_ITERATIONS = 0.95, (3.4445, -4.7750, 2.0315), 5


def public(
  name: str, packing: Packing, peak: float, num_steps: int, warm_up: int = 100
) -> optax.GradientTransformation:
  """The named optimiser, 'adam' or 'muon', with the schedule `learning_rates`.

  Args:
    name: 'adam' or 'muon'.
    packing: of the parameters.
    peak, num_steps, warm_up: of the schedule.
  """
  schedule = learning_rates(peak, num_steps, warm_up)
  if name == 'adam':
    return clipped_adam(schedule)
  return muon(schedule, packing)


def muon(
  learning_rate: float | optax.Schedule, packing: Packing
) -> optax.GradientTransformation:
  """Muon for packed parameters, gradients clipped to norm 1.

  Args:
    learning_rate: of matrices, and of Adam with Nesterov's momentum for the rest.
    packing: of the parameters.
  """
  label = lambda packed: {
    name: 'muon' if name in packing.places else 'adam' for name in packed
  }
  matrices = optax.chain(
    scale_by_muon(packing), optax.scale_by_learning_rate(learning_rate)
  )
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.partition(
      {'muon': matrices, 'adam': optax.adam(learning_rate, nesterov=True)}, label
    ),
  )


class MuonState(NamedTuple):
  """Number of updates and the gradients' moving average."""

  num_updates: jax.Array
  momentum: dict


def scale_by_muon(packing: Packing) -> optax.GradientTransformation:
  """Packed gradients of matrices -> updates with equal singular values, almost.

  As `optax.contrib.scale_by_muon` with its default options.
  """

  def init(params):
    return MuonState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

  def update(gradient, state, params=None):
    del params
    count = state.num_updates + 1
    momentum = optax.tree.update_moment(gradient, state.momentum, BETA, 1)
    ahead = jax.tree.map(
      lambda m, g: BETA * m + (1 - BETA) * g,
      optax.tree.bias_correction(momentum, BETA, count + 1),
      optax.tree.bias_correction(gradient, BETA, count),
    )
    updates = {
      name: blocks
      if isinstance(blocks, optax.MaskedNode)
      else _orthogonal(blocks, packing.places[name])
      for name, blocks in ahead.items()
    }
    return updates, MuonState(count, momentum)

  return optax.GradientTransformation(init, update)


def _orthogonal(blocks: Array, places) -> Array:
  """Blocks (n,w,w) of several matrices -> of each U V^T, by ADAMS_SCALE."""
  owner = np.repeat(np.arange(len(places)), [p.stop - p.start for p in places])
  belongs = jnp.asarray(np.arange(len(places))[:, None] == owner, blocks.dtype)
  width = blocks.shape[-1]
  gram = jnp.einsum('nij,nik->njk', blocks, blocks)
  gram = (belongs @ gram.reshape(len(blocks), -1)).reshape(-1, width, width)
  norm = jnp.sqrt(jnp.trace(gram, axis1=1, axis2=2))[:, None, None] + 1e-8
  eye = jnp.eye(width, dtype=blocks.dtype)
  size = ADAMS_SCALE * np.sqrt([[[max(p.rows, p.columns)]] for p in places])
  a, b, c = COEFFICIENTS

  def iterate(_, carry):
    gram, product = carry
    factor = a * eye + gram @ (b * eye + c * gram)
    return factor @ gram @ factor, product @ factor

  start = gram / norm**2, jnp.asarray(size, blocks.dtype) / norm * eye
  _, product = jax.lax.fori_loop(0, NUM_ITERATIONS, iterate, start)
  return jnp.einsum('nij,njk->nik', blocks, product[owner])
