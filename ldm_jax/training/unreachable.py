"""Parameters whose gradient is always zero: training them privately only adds noise.

With one token of context, the softmax over one key is constant and the projections to
query and key have no effect. A bias before a norm of single channels, or of a key,
adds a constant that is subtracted again. Private training adds noise to every trained
coordinate, so such parameters should stay frozen.

Which parameters these are follows from the network, the loss and the shapes alone: the
gradient is taken at random parameters and random inputs, where a value that is not zero
by construction is zero with probability zero. No scan is used, public or private.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import prng
from ldm_jax.training import one_off
from ldm_jax.training.state import unflatten
from ldm_jax.types import PyTree, Shape

# Root mean square of a leaf's gradient over that of the largest leaf. Rounding gives up
# to 4e-9 where the gradient is zero by construction; the smallest other ratio found is
# 7e-6 (UNet and DiT of the tests, all kernels adapted).
NEGLIGIBLE = 1e-7
NUM_EXAMPLES, NUM_DRAWS = 8, 4
MISSING = 0.3  # share of missing attributes, so that their embedding has a gradient


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
    losses: of `denoising_loss.denoising_losses`; conditions should be dropped in half
      of the examples, or the embedding of a dropped condition may appear to be idle.
    trained, frozen: flat dicts of arrays, of which only the shapes are used.
    latent_shape: (...,c) of one latent.
    num_attributes: k.
    num_conditions: k plus the entries of the embedded text.

  Raises:
    ValueError: no gradient reaches any of the trained parameters.
  """
  shapes = {path: leaf.shape for path, leaf in {**frozen, **trained}.items()}

  def sizes(values, z, conditions, key):
    others = {path: leaf for path, leaf in values.items() if path not in trained}

    def loss(moved):
      keys = prng.numbered(key, NUM_EXAMPLES)
      return losses(unflatten({**others, **moved}), z, conditions, keys).mean()

    gradient = jax.grad(loss)({path: values[path] for path in trained})
    return jax.tree.map(lambda g: jnp.sqrt(jnp.mean(jnp.square(g))), gradient)

  found, sizes = [], one_off.jit(sizes)
  for number in range(NUM_DRAWS):
    rng = np.random.default_rng(number)
    values = {path: _drawn(rng, shape) for path, shape in shapes.items()}
    z = rng.normal(size=(NUM_EXAMPLES, *latent_shape)).astype(np.float32)
    conditions = _conditions(rng, num_attributes, num_conditions)
    found.append(jax.device_get(sizes(values, z, conditions, prng.key(number))))
  size = {path: max(draw[path] for draw in found) for path in trained}
  largest = max(size.values())
  # A size that is NaN fails the comparison, so such a parameter is not idle.
  nothing = sorted(path for path in size if size[path] <= NEGLIGIBLE * largest)
  if len(nothing) == len(size):
    raise ValueError(
      f'No gradient reaches any of the {len(size)} parameters that '
      f'config.adapt.method trains ({", ".join(nothing[:4])}, ...). Choose another '
      'method, or other adapt.lora.targets.'
    )
  return nothing


def _drawn(rng, shape):
  """Normal values of variance 1 / fan-in, which keeps the size of activations."""
  fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 1.0
  return (rng.normal(size=shape) * fan_in**-0.5).astype(np.float32)


def _conditions(rng, num_attributes, num_conditions):
  conditions = rng.normal(size=(NUM_EXAMPLES, num_conditions)).astype(np.float32)
  attributes = conditions[:, :num_attributes]
  attributes[rng.random(attributes.shape) < MISSING] = np.nan
  conditions[::2, num_attributes:] = np.nan  # half of them have no text
  return conditions
