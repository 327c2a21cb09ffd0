"""The public feature network of the perceptual loss, trained to restore hidden voxels.

It needs no labels. It is not the network that evaluates the samples: a model must not
be trained on the features that it is evaluated with.

[Pathak16] Pathak et al., Context encoders, CVPR 2016.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ldm_jax.data.batching import epoch_batch
from ldm_jax.models.critics.planes import per_example, views
from ldm_jax.training import loop, state
from ldm_jax.training.mesh import own_rows, put_rows
from ldm_jax.training.plain_step import plain_step
from ldm_jax.types import Array, Config, PyTree

HIDDEN = 0.4  # share of hidden blocks
BLOCK = 4  # voxels along each axis
NOISE = 0.05  # standard deviation


def fit(
  module: nn.Module,
  params: PyTree,
  volumes: Callable[[np.ndarray], np.ndarray],
  section: Config,
  planes: Sequence[int],
  *,
  mesh: Mesh,
  key: jax.Array,
  seed: int,
  num: int,
  run: Mapping[str, Any],
) -> PyTree:
  """Trains the network on public volumes; resumes like every stage.

  Args:
    module: models.critics.segmenter.Segmenter with one output per channel of the
      volumes.
    params: its initial parameters.
    volumes: indices -> (b,*space,c).
    section: config.autoencoder.perceptual (steps, batch_size, learning_rate).
    planes: axes along which volumes are cut into slices, () for a 3D network.
    mesh: devices. key, seed: randomness. num: number of volumes.
    run: keyword arguments of training.loop.train.

  Returns:
    Trained parameters (averaged), nested.
  """

  def example_losses(trained, frozen, batch, keys, step):
    del frozen, step
    x = batch['x']
    hidden = jax.vmap(hide)(keys, x)
    total = 0.0
    for a, b in zip(views(hidden, planes), views(x, planes), strict=True):
      x_hat = module.apply({'params': state.unflatten(trained)}, a)
      total += per_example(jnp.square(x_hat - b), len(x))
    return total, {}

  optimizer = optax.adam(
    optax.cosine_decay_schedule(section.learning_rate, section.steps, 0.05)
  )
  step = plain_step(example_losses, optimizer, mesh, ema_decay=0.98)

  def take_step(current, number):
    chosen = epoch_batch(num, section.batch_size, seed, number, wrap=True)
    batch = {'x': volumes(chosen[own_rows(mesh, len(chosen))])}
    return step(current, {}, put_rows(mesh, batch, len(chosen)), key)

  initial = state.create(state.flatten(params), optimizer)
  final = loop.train(take_step, initial, section.steps, mesh=mesh, **run)
  return state.unflatten(dict(final.ema))


def hide(key: jax.Array, x: jax.Array) -> jax.Array:
  """One volume (*space,c) with noise and with blocks of voxels set to zero."""
  key_blocks, key_noise = jax.random.split(key)
  size = [-(-n // BLOCK) for n in x.shape[:-1]]
  kept = jax.random.bernoulli(key_blocks, 1 - HIDDEN, size)
  for axis in range(len(size)):
    kept = jnp.repeat(kept, BLOCK, axis)
  kept = kept[tuple(slice(n) for n in x.shape[:-1])]
  noisy = x + NOISE * jax.random.normal(key_noise, x.shape)
  return noisy * kept[..., None]


def feature_maps(module: nn.Module, params: PyTree) -> Callable[[Array], Any]:
  """x (n,*space,c) -> list of maps (n,*,f) of all levels, for
  models.critics.perceptual."""
  return lambda x: module.apply({'params': params}, x, method='maps')


def example(volume: Array, planes: Sequence[int]) -> Array:
  """The input of the network for one volume (1,*space,c), for initialisation."""
  return views(np.asarray(volume), planes)[0][:1]
