"""Patch discriminator: x (b,*space,c) -> logits of overlapping patches (b,*patches,1).

[Isola17] Isola et al., Image-to-image translation with conditional adversarial
networks, CVPR 2017. [Wang18] Wang et al., pix2pixHD, CVPR 2018: several scales.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models.conv.conv import Conv
from ldm_jax.models.critics.planes import views
from ldm_jax.models.layers import Network, average, kernels_and_strides
from ldm_jax.models.norms import GroupNorm
from ldm_jax.types import Array

SLOPE = 0.2


class PatchDiscriminator(Network):
  """Strided convolutions with leaky ReLU and norms that never mix examples.

  Attributes:
    channels: per convolution; all but the last are strided.
    kernels, strides: as in `autoencoder.Autoencoder`; of two axes with planes.
    planes: axes along which volumes are cut into slices; () for whole volumes.
    num_scales: discriminators of the volume at scale 1, 1/2, 1/4, ... [Wang18]
  """

  channels: tuple = (32, 64, 128)
  kernels: tuple = (3, 3, 3)
  strides: tuple | None = None
  planes: tuple = ()
  num_scales: int = 1

  def setup(self) -> None:
    self.scales = [
      _Scale(self.channels, self.kernels, self.strides) for _ in range(self.num_scales)
    ]

  def __call__(self, x: jax.Array) -> list[jax.Array]:
    """Logits, one array (b * slices,*patches,1) for each plane and scale."""
    found = []
    for view in views(x, self.planes):
      for scale in self.scales:
        found.append(scale(view))
        view = average(view, (2,) * (view.ndim - 2))
    return found


class _Scale(nn.Module):
  channels: tuple
  kernels: tuple
  strides: tuple | None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernels, strides = kernels_and_strides(
      self.kernels, self.strides, len(self.channels)
    )
    one = (1,) * len(kernels[0])
    levels = zip(self.channels, kernels, (*strides, one), strict=True)
    for i, (features, kernel, stride) in enumerate(levels):
      # No norm after the first one: it would remove the intensity.
      x = Conv(features, kernel, stride, use_bias=not i, name=f'convs_{i}')(x)
      if i:
        x = GroupNorm(features, name=f'norms_{i}')(x)  # a group a channel
      x = nn.leaky_relu(x, SLOPE)
    return Conv(1, kernels[-1], name='conv_out')(x)


def hinge_of_real(logits: Array) -> jax.Array:
  """max(0, 1 - D(x)), elementwise."""
  return jnp.maximum(0.0, 1.0 - logits)


def hinge_of_fake(logits: Array) -> jax.Array:
  """max(0, 1 + D(x_hat)), elementwise."""
  return jnp.maximum(0.0, 1.0 + logits)
