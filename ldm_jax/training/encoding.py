"""Volumes -> latents -> volumes: the trained autoencoder, batches, normalisation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import processes
from ldm_jax.training import checkpoint, networks
from ldm_jax.training.mesh import gather_parts
from ldm_jax.types import Array, Config, Progress, PyTree

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split
  from ldm_jax.workfolder import WorkFolder


# Compiled once for all stages of a process: networks are equal where their options are,
# and parameters are arguments.
@functools.partial(jax.jit, static_argnums=0)
def encoded(module: nn.Module, params: PyTree, x: Array) -> tuple[jax.Array, jax.Array]:
  """x (b,d,h,w,1) -> posterior mean and standard deviation (b,...,c).

  For a network with label maps x is (b,d,h,w,1 + k), and so is what `decoded` returns.
  """
  apply: Callable[..., Any] = module.apply
  return apply({'params': params}, x, method='encode')


@functools.partial(jax.jit, static_argnums=0)
def decoded(module: nn.Module, params: PyTree, z: Array) -> jax.Array:
  """z (b,...,c) -> x (b,d,h,w,1)."""
  apply: Callable[..., Any] = module.apply
  return apply({'params': params}, z, method='decode')


@functools.partial(jax.jit, static_argnums=0)
def _decoded_volume(module, params, z):
  """z (b,...,c) -> x (b,d,h,w,1), without its label map."""
  return decoded(module, params, z)[..., : -module.num_labels]


class TrainedAutoencoder:
  """The autoencoder of a run with its parameters; its functions are compiled.

  Attributes:
    module: the network.
    params: its nested parameters.
    encode: x (b,d,h,w,1) -> posterior mean z (b,...,c). With label maps also
      (b,d,h,w,1 + k); those that are not given count as unknown.
    decode: z -> x (b,d,h,w,1).
    decode_labelled: z -> (b,d,h,w,1 + k), x and the logits of its label map; None where
      the model has no label maps.
  """

  def __init__(self, module: nn.Module, params: PyTree):
    self.module, self.params = module, params
    self.encode = lambda x: encoded(module, params, self.complete(x))[0]
    self.decode = functools.partial(decoded, module, params)
    self.decode_labelled: Callable[[Array], jax.Array] | None = None
    if module.num_labels:
      self.decode_labelled = self.decode
      self.decode = functools.partial(_decoded_volume, module, params)

  def complete(self, x: Array) -> Array:
    """x with zeros in place of the label channels that it lacks."""
    lacking = 1 + self.module.num_labels - x.shape[-1]
    if not self.module.num_labels or not lacking:
      return x
    return jnp.pad(jnp.asarray(x), [(0, 0)] * (x.ndim - 1) + [(0, lacking)])

  @functools.cached_property
  def posterior(self) -> Callable[[Array], jax.Array]:
    """x -> mean and log variance side by side, (b,...,2c).

    Raises:
      ValueError: an autoencoder without a posterior variance.
    """
    if not self.module.is_gaussian:
      raise ValueError(
        'encode.logvar is set, but neither a codebook nor a wavelet has a posterior '
        'variance. Set config.encode.logvar=False.'
      )

    def posterior(x):
      mean, std = encoded(self.module, self.params, self.complete(x))
      return jnp.concatenate([mean, 2 * jnp.log(std)], -1)

    return posterior


def trained_autoencoder(config: Config, work: WorkFolder) -> TrainedAutoencoder:
  """The autoencoder that the stage `autoencoder` left in the work folder."""
  params = checkpoint.load_params(work.checkpoints('autoencoder'))
  num_labels = len(networks.label_values(config))
  module = networks.autoencoder(config.autoencoder, num_labels)
  return TrainedAutoencoder(module, params)


def apply_in_batches(
  function: Callable[[np.ndarray], Array], array: Array, batch_size: int
) -> np.ndarray:
  """function over (n,...) in batches of one shape (the last one padded).

  Several processes share the batches out, and all return all results.
  """

  def apply(indices):
    part = np.asarray(array[indices[0] : indices[-1] + 1])
    return np.asarray(function(padded(part, batch_size)))[: len(part)]

  return in_shared_batches(apply, len(array), batch_size)


def in_shared_batches(
  function: Callable[[np.ndarray], np.ndarray],
  num_rows: int,
  batch_size: int,
  advance: Callable[[int], None] | None = None,
) -> np.ndarray:
  """function over the numbers of rows, batch by batch; all results in all processes.

  Each process computes every count-th batch, on its own devices. Results come as
  float32 or smaller.

  Args:
    function: row numbers (b,), at most `batch_size` -> results (b,...).
    num_rows: n, at least 1.
    batch_size: rows of a batch.
    advance: called with the number of rows that are done, of all processes.
  """
  parts = shared_batches(function, num_rows, batch_size, advance)
  return np.concatenate(list(parts))


def shared_batches(
  function: Callable[[np.ndarray], np.ndarray],
  num_rows: int,
  batch_size: int,
  advance: Callable[[int], None] | None = None,
) -> Iterator[np.ndarray]:
  """The results of `in_shared_batches` one batch after the other, in all processes.

  Each process computes one batch, then all hear of all: no more than a batch of each
  process is in memory.
  """
  starts = range(0, num_rows, batch_size)
  rows_from = lambda start: np.arange(start, min(start + batch_size, num_rows))
  count = processes.count()
  for first in range(0, len(starts), count):
    turn = starts[first : first + count]
    # Who has no batch left computes the first one once more.
    own = turn[processes.number()] if processes.number() < len(turn) else 0
    made = np.asarray(function(rows_from(starts[first] if count == 1 else own)))
    parts = made[None] if count == 1 else gather_parts(padded(made, batch_size))
    for start, part in zip(turn, parts, strict=False):
      yield part[: len(rows_from(start))]
      if advance is not None:
        advance(min(start + batch_size, num_rows))


def padded(rows: np.ndarray, length: int) -> np.ndarray:
  """(m,...) -> (length,...), filled with zeros."""
  return np.pad(rows, [(0, length - len(rows))] + [(0, 0)] * (rows.ndim - 1))


def encode_split(
  encode: Callable[[np.ndarray], Array],
  split: Split,
  batch_size: int,
  advance: Progress,
  inputs: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
  """Latents (n,...,c) of all entries of a split, read batch by batch.

  Args:
    encode: volumes (b,...) -> latents.
    split: prepared cohort.
    batch_size: volumes of a batch.
    advance: of a progress bar.
    inputs: indices (b,) -> what is encoded; None for the split's volumes.
  """
  inputs = inputs or split.volumes

  def encoded_rows(indices):
    volumes = padded(inputs(indices), batch_size)
    return np.asarray(encode(volumes))[: len(indices)]

  return in_shared_batches(encoded_rows, len(split), batch_size, advance)


def normalise(z: Array, mean: Array, std: Array) -> jax.Array:
  """Returns (z - mean) / std for latents (..., c)."""
  return (z - jnp.asarray(mean, z.dtype)) / jnp.asarray(std, z.dtype)


def denormalise(z: Array, mean: Array, std: Array) -> jax.Array:
  """Inverse of `normalise`."""
  return z * jnp.asarray(std, z.dtype) + jnp.asarray(mean, z.dtype)
