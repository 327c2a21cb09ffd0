"""Alternatives to `layers.Upsample`: (b,*space,c) -> (b,*space*s,f).

[MONAI] `use_convtranspose` of its autoencoder, and MAISI's interpolation.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models.conv.conv import Conv
from ldm_jax.models.init import fan_in


class Deconv(nn.Module):
  """Transposed convolution with a kernel as large as its stride: one block per voxel.

  Blocks do not overlap, so it is one matrix product without a loop over taps.
  Parameters kernel (*strides,c_in,features), bias (features,).
  """

  features: int
  strides: tuple
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    num = len(self.strides)
    shape = (*self.strides, x.shape[-1], self.features)
    kernel = self.param('kernel', fan_in, shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    dtype = self.dtype or x.dtype
    y = jnp.tensordot(x.astype(dtype), kernel.astype(dtype), [[-1], [num]])
    # (b, *space, *strides, features) -> each spatial axis followed by its stride.
    order = [0]
    for axis in range(num):
      order += [1 + axis, 1 + num + axis]
    size = [n * s for n, s in zip(x.shape[1:-1], self.strides, strict=True)]
    y = y.transpose(*order, 1 + 2 * num).reshape(x.shape[0], *size, self.features)
    return y + bias.astype(dtype)


class TransposedUpsample(nn.Module):
  """`Deconv` under the name `deconv`, in place of a `layers.Upsample`."""

  features: int
  strides: tuple
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return Deconv(self.features, self.strides, self.dtype, name='deconv')(x)


class LinearUpsample(nn.Module):
  """Linear interpolation between voxel centres, then the convolution `conv`."""

  features: int
  kernel_size: tuple
  strides: tuple
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    size = [n * s for n, s in zip(x.shape[1:-1], self.strides, strict=True)]
    x = jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), 'linear')
    return Conv(self.features, self.kernel_size, dtype=self.dtype, name='conv')(x)
