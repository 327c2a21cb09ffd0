"""Distance of two volumes in the features of a frozen network: (b,*space,c) -> (b,).

[Zhang18] Zhang et al., The unreasonable effectiveness of deep features as a perceptual
metric, CVPR 2018, Eq. 1 with equal weights for all channels.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ldm_jax.models.critics.planes import per_example, views
from ldm_jax.types import Array

EPSILON = 1e-10


def distance(
  features: Callable[[Array], list[jax.Array]],
  x: jax.Array,
  y: jax.Array,
  planes: Sequence[int] = (),
  share: float = 1.0,
  keys: jax.Array | None = None,
) -> jax.Array:
  """Squared distance of unit feature vectors, averaged over voxels and planes.

  The distances of all maps are summed.

  Args:
    features: (n,*space,c) -> list of maps (n,*,f); in 2D if there are planes.
    x, y: (b,*space,c) volumes.
    planes: axes along which volumes are cut into slices; () compares whole volumes.
    share: fraction of the slices along each axis to compare, drawn by keys; 1 for all.
    keys: (b,) PRNG keys, needed if share is below 1.

  Returns: (b,), 0 for equal volumes.

  Raises: ValueError if share is below 1 and keys are missing, or for planes that are no
    axes of the volumes.
  """
  total = jnp.zeros(len(x))
  pairs = zip(views(x, planes), views(y, planes), strict=True)
  for i, (a, b) in enumerate(pairs):
    if planes and share < 1:
      if keys is None:
        raise ValueError(
          f'share is {share}, but keys is None; pass keys (b,) or set share to 1'
        )
      a, b = _drawn(jax.vmap(jax.random.fold_in, (0, None))(keys, i), a, b, share)
    maps = zip(features(a), features(b), strict=True)
    for f, g in maps:
      difference = jnp.square(_unit(f) - _unit(g)).sum(-1)
      total += per_example(difference, len(x)) / max(1, len(planes))
  return total


def _drawn(keys, a, b, share):
  """The same random slices (b * m,*space,c) of both, other ones for each example."""
  a, b = (v.reshape(len(keys), -1, *v.shape[1:]) for v in (a, b))
  num = max(1, round(share * a.shape[1]))

  def pick(key, a, b):
    chosen = jax.random.permutation(key, len(a))[:num]
    return a[chosen], b[chosen]

  return tuple(v.reshape(-1, *v.shape[2:]) for v in jax.vmap(pick)(keys, a, b))


def _unit(f):
  f = f.astype(jnp.float32)
  return f / jnp.sqrt(jnp.square(f).sum(-1, keepdims=True) + EPSILON)
