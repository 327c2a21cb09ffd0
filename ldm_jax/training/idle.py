"""Parameters that no gradient reaches: they would only gather privacy noise.

With one token of context, softmax over one key is constant and the projections to
query and key do nothing; a bias before a norm of single channels, or of a key, shifts
what is subtracted again. Private training adds noise to every coordinate it moves, so
such parameters are better left as they are.

Which they are follows from the network, the loss and the shapes alone: the gradient is
taken at drawn parameters and drawn inputs, where a number that is not zero by
construction is zero with probability zero. No scan is looked at, public or private.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.training.state import unflatten
from ldm_jax.types import PyTree, Shape

# Root mean square of a leaf's gradient over the largest leaf's: rounding leaves up to
# 4e-9 where the gradient is zero by construction; the smallest other one that was
# found is 7e-6 (UNet and DiT of the tests, all kernels adapted).
NEGLIGIBLE = 1e-7
NUM_EXAMPLES, NUM_DRAWS = 8, 4
MISSING = 0.3  # share of attributes, so that what stands for them has a gradient


def idle(
  losses: Callable[..., jax.Array],
  trained: PyTree,
  frozen: PyTree,
  latent_shape: Shape,
  num_attributes: int,
  num_conditions: int,
) -> list[str]:
  """Paths of `trained` whose gradient is zero by construction, sorted.

  Args:
    losses: of `diffusion.denoising_losses`; conditions should be dropped in half of
      the examples, or what stands for a dropped one may seem to be idle.
    trained, frozen: flat dicts of arrays; of their values only the shapes are used.
    latent_shape: (...,c) of one latent.
    num_attributes, num_conditions: k, and k with the embedded text behind them.

  Raises:
    ValueError: if no gradient reaches any of the trained parameters.
  """
  shapes = {path: leaf.shape for path, leaf in {**frozen, **trained}.items()}

  def sizes(values, z, conditions, key):
    others = {path: leaf for path, leaf in values.items() if path not in trained}

    def loss(moved):
      keys = jax.random.split(key, NUM_EXAMPLES)
      return losses(unflatten({**others, **moved}), z, conditions, keys).mean()

    gradient = jax.grad(loss)({path: values[path] for path in trained})
    return jax.tree.map(lambda g: jnp.sqrt(jnp.mean(jnp.square(g))), gradient)

  found, sizes = [], jax.jit(sizes)
  for number in range(NUM_DRAWS):
    rng = np.random.default_rng(number)
    values = {path: _drawn(rng, shape) for path, shape in shapes.items()}
    z = rng.normal(size=(NUM_EXAMPLES, *latent_shape)).astype(np.float32)
    conditions = _conditions(rng, num_attributes, num_conditions)
    found.append(jax.device_get(sizes(values, z, conditions, jax.random.key(number))))
  size = {path: max(draw[path] for draw in found) for path in trained}
  largest = max(size.values())
  # A number that is not finite says nothing: such a parameter is not idle.
  nothing = sorted(path for path in size if size[path] <= NEGLIGIBLE * largest)
  if len(nothing) == len(size):
    raise ValueError(
      f'No gradient reaches any of the {len(size)} parameters that '
      f'config.adapt.method chose ({", ".join(nothing[:4])}, ...). Choose another '
      'method, or other adapt.lora.targets.'
    )
  return nothing


def _drawn(rng, shape):
  """Normal, of variance 1 / fan-in where there are inputs: signals keep their size."""
  fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 1.0
  return (rng.normal(size=shape) * fan_in**-0.5).astype(np.float32)


def _conditions(rng, num_attributes, num_conditions):
  conditions = rng.normal(size=(NUM_EXAMPLES, num_conditions)).astype(np.float32)
  attributes = conditions[:, :num_attributes]
  attributes[rng.random(attributes.shape) < MISSING] = np.nan
  conditions[::2, num_attributes:] = np.nan  # half of them have no text
  return conditions
