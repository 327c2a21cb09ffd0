"""A label map as condition: input channels of the denoiser beside z_t (b,*space,c).

The map comes on the grid of the latent, as the share that each class has of a latent's
voxel. Its columns are the last ones of a condition, (b, n k) for n voxels and k
classes; NaN, or no columns at all, means that no map is given, and its channels are
zero, which no map has: shares of all classes add up to 1.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.types import Array, Shape


def size(space: Shape, num_labels: int) -> int:
  """Number of columns of a map on a latent grid."""
  return math.prod(space) * num_labels


def columns(shares: np.ndarray) -> np.ndarray:
  """Shares (b,*space,k) -> columns (b, n k)."""
  return np.asarray(shares, np.float32).reshape(len(shares), -1)


def read(
  condition: jax.Array, own: int, space: Shape, num_labels: int
) -> tuple[jax.Array, jax.Array]:
  """Condition without its map, and the channels (b,*space,k) of the map.

  Args:
    condition: (b,own) or (b,own + n k).
    own: columns without the map.
    space: of the latent. num_labels: k.
  """
  if condition.shape[1] != own + size(space, num_labels):
    return condition, jnp.zeros((len(condition), *space, num_labels))
  shares = condition[:, own:].reshape(-1, *space, num_labels)
  return condition[:, :own], jnp.where(jnp.isnan(shares), 0.0, shares)


def dropped(channels: Array, drop: Array | None) -> Array:
  """Channels (b,*space,k), zero in the examples that are dropped (b,)."""
  if drop is None:
    return channels
  return jnp.where(drop.reshape(-1, *[1] * (channels.ndim - 1)), 0.0, channels)
