"""Counterfactual of a scan: what it would look like with other attributes.

Three steps: an editor (`editors.registry`) finds the noise of the source latent under
the source's own attributes (abduction), the attributes are changed (action), and the
result is sampled from that noise (prediction). The detail that the autoencoder loses is
added back, so that a null intervention returns the source. Shapes as in `generate`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.data.batching import chunks
from ldm_jax.synthesis.system import System
from ldm_jax.training.encoding import in_shared_batches
from ldm_jax.types import Array, Shape


class Counterfactual(NamedTuple):
  """Arrays (b, d, h, w, 1): the result, the autoencoder's copy of x, result - x."""

  volume: np.ndarray
  reconstruction: np.ndarray
  difference: np.ndarray


def counterfactual(
  edit: Callable,
  system: System,
  x: Array,
  attributes: Array,
  new_attributes: Array,
  *,
  keep: Array | None = None,
  keep_detail: bool = True,
) -> Counterfactual:
  """Returns the counterfactual of volumes x (b, d, h, w, 1) in [0, 1].

  Args:
    edit: an editor of `editors.registry`.
    system: its encode, decode and params are used.
    x: source volumes.
    attributes, new_attributes: (b, k), of the source and as requested.
    keep: bool, shape of x, true where the source must stay voxel for voxel.
    keep_detail: add x - decode(encode(x)) back, so that only the change is new.

  Raises:
    ValueError: a mask that does not divide into latent cells; what the editor refuses.
  """
  x = jnp.asarray(x, jnp.float32)
  z = system.encode(x)
  reconstruction = system.decode(z)
  latent_keep = None if keep is None else shrink_keep(keep, z.shape)
  z_cf = edit(system.params, z, attributes, new_attributes, latent_keep)
  volume = system.decode(z_cf)
  if keep_detail:
    volume = x + (volume - reconstruction)
  volume = jnp.clip(volume, 0, 1)
  if keep is not None:
    volume = jnp.where(jnp.asarray(keep, bool), x, volume)
  return Counterfactual(*map(np.asarray, (volume, reconstruction, volume - x)))


def in_batches(
  batch_size: int,
  edit: Callable,
  system: System,
  x: np.ndarray,
  attributes: np.ndarray,
  new_attributes: np.ndarray,
  *,
  keep: np.ndarray | None = None,
  keep_detail: bool = True,
) -> Counterfactual:
  """As `counterfactual`, at most `batch_size` volumes at once; one compilation."""
  batch_size = min(batch_size, len(x))

  def edited(rows):
    ((indices, real),) = chunks(rows, batch_size)
    result = counterfactual(
      edit,
      system,
      x[indices],
      attributes[indices],
      new_attributes[indices],
      keep=None if keep is None else keep[indices],
      keep_detail=keep_detail,
    )
    return np.stack(result, 1)[real]

  parts = in_shared_batches(edited, len(x), batch_size)
  return Counterfactual(*(parts[:, kind] for kind in range(parts.shape[1])))


def shrink_keep(keep: Array, latent_shape: Shape) -> jax.Array:
  """Brings a mask (b, d, h, w, 1) to latent resolution (b, d', h', w', 1).

  A latent cell is kept only where all of its voxels are kept.

  Raises:
    ValueError: a mask whose axes are not multiples of the latent's.
  """
  keep = jnp.asarray(keep, bool)
  spatial, latent = keep.shape[1:-1], tuple(latent_shape[1:-1])
  if len(spatial) != len(latent) or any(
    n % m for n, m in zip(spatial, latent, strict=True)
  ):
    raise ValueError(
      f'A mask of {spatial} voxels does not divide into latents of {latent} cells; '
      'pass a mask of the shape of the preprocessed volume.'
    )
  for axis, (n, m) in enumerate(zip(spatial, latent, strict=True), start=1):
    split = (*keep.shape[:axis], m, n // m, *keep.shape[axis + 1 :])
    keep = keep.reshape(split).all(axis + 1)
  return keep
