"""Loss of the label channels of an autoencoder: logits (b,*space,k) -> (b,).

Weighted cross-entropy and soft Dice [Milletari16, V-Net, arXiv 1606.04797]. The weights
follow from the public cohort, whose patients alone the autoencoder learns from.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.types import Array

# Voxels that a class which is absent counts as: no division by zero, and no gradient
# from a few wrong voxels as from a lost organ.
SMOOTH = 1.0
LEAST_SHARE = 1e-4  # a class that public patients hardly show does not rule the loss


def class_weights(shares: np.ndarray) -> np.ndarray:
  """Weights (k,) of the classes in the cross-entropy, from their shares of voxels (k,).

  They fall with the square root of the share, and their mean over voxels is 1: rare
  classes count more, but not so much that their borders grow.
  """
  shares = np.asarray(shares, np.float64)
  weights = 1 / np.sqrt(np.maximum(shares, LEAST_SHARE))
  return weights / (weights * shares).sum()


def losses(logits: jax.Array, truth: Array, weights: Array) -> jax.Array:
  """Cross-entropy plus one minus the soft Dice of the foreground classes: (b,).

  Args:
    logits: (b,*space,k), class 0 is background.
    truth: (b,*space,k) one-hot.
    weights: (k,) of `class_weights`.
  """
  axes = tuple(range(1, logits.ndim - 1))
  log_p = jax.nn.log_softmax(logits)
  entropy = -(truth * log_p * jnp.asarray(weights, log_p.dtype)).sum(-1)
  return entropy.mean(axes) + (1 - soft_dice(jnp.exp(log_p), truth)).mean(-1)


def soft_dice(probabilities: Array, truth: Array) -> jax.Array:
  """Overlap of the foreground classes, (b,*space,k) each -> (b,k - 1) in [0, 1]."""
  axes = tuple(range(1, probabilities.ndim - 1))
  overlap = (probabilities * truth).sum(axes)[:, 1:]
  total = (probabilities + truth).sum(axes)[:, 1:]
  return (2 * overlap + SMOOTH) / (total + SMOOTH)


def hide(x: jax.Array, keys: jax.Array, num_labels: int, share: float) -> jax.Array:
  """x (b,*space,1 + k) with zero label channels in a random share of the examples.

  Args:
    x: volumes and one-hot label maps.
    keys: (b,) of the examples; other draws of these keys are independent.
    num_labels: k.
    share: of examples without labels.
  """
  keys = jax.vmap(lambda key: jax.random.fold_in(key, num_labels))(keys)
  kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - share))(keys)
  kept = kept.reshape(-1, *[1] * (x.ndim - 1))
  return jnp.concatenate([x[..., :-num_labels], x[..., -num_labels:] * kept], -1)
