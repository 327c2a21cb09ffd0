"""The building blocks of every network: (b,*space,c) -> (b,*space,features).

In two or three spatial dimensions, by the length of the kernel. Parameters are float32
under stable names; `dtype` is the type of the products (default: the input's); norms
and softmax are always computed in float32. No layer mixes examples.

Layouts follow MONAI's networks ([MONAI] monai.networks.nets.diffusion_model_unet and
autoencoderkl, 1.6), so that their weights map one to one.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from ldm_jax.models import adapters
from ldm_jax.models.conv.conv import Conv, LinearMap
from ldm_jax.models.conv.repeated import RepeatedConv, nearest
from ldm_jax.models.init import fan_in
from ldm_jax.models.norms import GroupNorm
from ldm_jax.types import Array, Shape

ZEROS = nn.initializers.zeros


def per_level(value: Any, num_levels: int, name: str) -> tuple:
  """One entry per level: an int, a bool or None is repeated.

  Raises: ValueError if a sequence has another length; it names `name`.
  """
  if isinstance(value, int) or value is None:
    return (value,) * num_levels
  value = tuple(tuple(v) if isinstance(v, list | tuple) else v for v in value)
  if len(value) != num_levels:
    raise ValueError(
      f'{name} has {len(value)} entries, expected {num_levels} (one per level; for '
      f'strides one fewer than channels); change {name} or channels'
    )
  return value


def kernels_and_strides(
  kernels: Sequence, strides: Sequence | None, num_levels: int
) -> tuple[tuple[Shape, ...], tuple[Shape, ...]]:
  """Kernels, one tuple per level, and strides, one tuple between two levels.

  One kernel such as (3, 3, 3) is used for every level; strides None is 2 along every
  axis.

  Raises: ValueError if their numbers of entries or of axes do not fit.
  """
  if all(isinstance(k, int) for k in kernels):
    kernels = (tuple(kernels),) * num_levels
  kernels = per_level(kernels, num_levels, 'kernels')
  if strides is None:
    strides = (2,) * len(kernels[0])
  if strides and all(isinstance(s, int) for s in strides):
    strides = (tuple(strides),) * (num_levels - 1)
  strides = per_level(strides, num_levels - 1, 'strides')
  if len({len(v) for v in kernels + strides}) != 1:
    raise ValueError(
      f'kernels {kernels} and strides {strides} differ in their number of axes; give '
      'every entry two axes for images or three for volumes'
    )
  return kernels, strides


def _hashable(value):
  if isinstance(value, list | tuple):
    return tuple(map(_hashable, value))
  if isinstance(value, Mapping):
    return FrozenDict({key: _hashable(v) for key, v in value.items()})
  return value


def average(x: jax.Array, strides: Sequence[int]) -> jax.Array:
  """Means over blocks of strides voxels; a partial last block is padded by its edge."""
  sizes = x.shape[1:-1]
  margins = [(0, -n % s) for n, s in zip(sizes, strides, strict=True)]
  x = jnp.pad(x, [(0, 0), *margins, (0, 0)], mode='edge')
  shape = [x.shape[0]]
  for n, s in zip(x.shape[1:-1], strides, strict=True):
    shape += [n // s, s]
  axes = tuple(range(2, 2 * len(strides) + 1, 2))
  return x.reshape(*shape, x.shape[-1]).mean(axes)


class Network(nn.Module):
  """A module whose options may be lists and dicts, as read from JSON."""

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name, None)
      if isinstance(value, list | tuple | Mapping):
        object.__setattr__(self, field.name, _hashable(value))
    super().__post_init__()


class Dense(nn.Dense):
  """A linear layer, initialised like a convolution, which may have an adapter."""

  kernel_init: nn.initializers.Initializer = fan_in

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = super().__call__(x)
    return adapters.beside(self, y, lambda kernel: x.astype(y.dtype) @ kernel)

  def linear_map(self) -> LinearMap:
    """Says that the layer is linear in its kernel, see `conv.LinearMap`."""
    return LinearMap()


class ResidualBlock(nn.Module):
  """Two convolutions plus a skip: x (b,*space,c), embedding (b,e) -> features.

  norm1, silu, conv1, + time_emb_proj(silu(embedding)), norm2, silu, conv2; a 1x1
  skip_connection if the number of channels changes. `resample` 'down' averages blocks
  of `strides` voxels, 'up' repeats voxels, before conv1 and on the skip. With
  `modulates`, time_emb_proj gives a scale and a shift of what leaves norm2, which no
  norm takes away again ([Dhariwal21] arXiv 2105.05233, AdaGN).
  """

  features: int
  kernel_size: tuple
  norm_groups: int
  norm_eps: float = 1e-6
  resample: str | None = None
  strides: tuple = ()
  zero_init: bool = False
  pointwise: bool = False
  modulates: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(
    self, x: jax.Array, embedding: Array | None = None, size: Shape | None = None
  ) -> jax.Array:
    norm = functools.partial(
      GroupNorm, self.norm_groups, self.norm_eps, dtype=self.dtype
    )
    conv = functools.partial(
      Conv, features=self.features, kernel_size=self.kernel_size, dtype=self.dtype
    )
    h = nn.silu(norm(name='norm1')(x))
    if self.resample == 'down':
      x, h = average(x, self.strides), average(h, self.strides)
    elif self.resample == 'up':
      x, h = nearest(x, self.strides, size), nearest(h, self.strides, size)
    h = conv(name='conv1')(h)
    given = None
    if embedding is not None:
      num = (1 + self.modulates) * self.features
      time_emb_proj = Dense(num, dtype=self.dtype, name='time_emb_proj')
      given = time_emb_proj(nn.silu(embedding))
    if given is not None and not self.modulates:
      h = h + jnp.expand_dims(given, range(1, x.ndim - 1))
    h = norm(name='norm2')(h)
    if given is not None and self.modulates:
      h = _modulated(h, given)
    h = nn.silu(h)
    last: dict[str, Any] = {'kernel_init': ZEROS} if self.zero_init else {}
    one = (1,) * len(self.kernel_size)
    last |= {'kernel_size': one} if self.pointwise else {}
    h = conv(name='conv2', **last)(h)
    if x.shape[-1] != self.features:
      x = Conv(self.features, one, dtype=self.dtype, name='skip_connection')(x)
    return x + h


def _modulated(x, given):
  """x (b,*space,c) times 1 + scale plus shift, both (b,c) of given (b,2c).

  Over one axis of all voxels: the gradient's sums over several are slow on a CPU.
  """
  scale, shift = jnp.split(given[:, None], 2, -1)
  voxels = x.reshape(len(x), -1, x.shape[-1])
  return (voxels * (1 + scale) + shift).reshape(x.shape)


class Downsample(nn.Module):
  """Strided convolution `conv`: space n -> ceil(n / s), floor with trailing_padding.

  trailing_padding: k - s zeros around each strided axis, one more behind if that is
    odd, as in [MONAI]'s autoencoder.
  """

  features: int
  kernel_size: tuple
  strides: tuple
  trailing_padding: bool = False
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(
    self, x: jax.Array, embedding: Array | None = None, size: Shape | None = None
  ) -> jax.Array:
    del embedding, size  # same signature as ResidualBlock
    padding: str | tuple = 'same'
    if self.trailing_padding:
      padding = tuple(
        (max(k - s, 0) // 2, -(-max(k - s, 0) // 2))
        if s > 1
        else ((k - 1) // 2, k // 2)
        for k, s in zip(self.kernel_size, self.strides, strict=True)
      )
    conv = Conv(
      self.features,
      self.kernel_size,
      self.strides,
      padding,
      dtype=self.dtype,
      name='conv',
    )
    return conv(x)


class Upsample(nn.Module):
  """Repeats voxels by the strides, crops to size, then the convolution `conv`."""

  features: int
  kernel_size: tuple
  strides: tuple
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(
    self, x: jax.Array, embedding: Array | None = None, size: Shape | None = None
  ) -> jax.Array:
    del embedding  # same signature as ResidualBlock
    options: dict[str, Any] = {'dtype': self.dtype, 'name': 'conv'}
    whole = tuple(n * s for n, s in zip(x.shape[1:-1], self.strides, strict=True))
    if size is None or tuple(size) == whole:
      repeated = RepeatedConv(
        self.features, self.kernel_size, repeats=self.strides, **options
      )
      return repeated(x)
    # Cropped before the convolution, which must not read the cropped voxels.
    conv = Conv(self.features, self.kernel_size, **options)
    return conv(nearest(x, self.strides, size))
