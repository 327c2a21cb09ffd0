"""Autoencoder, Gaussian or with a codebook: x (b,*space,c) <-> z (b,*space/s,latent).

[KL] Rombach et al. 2022, arXiv 2112.10752; blocks in the order of MONAI's
AutoencoderKL. Kernels and strides are per level and axis: (1, 3, 3) with (1, 2, 2)
never mixes slices; with two axes it is an autoencoder of images.
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models.attention import AttentionBlock
from ldm_jax.models.autoencoders.quantizer import Quantizer
from ldm_jax.models.autoencoders.upsampling import LinearUpsample, TransposedUpsample
from ldm_jax.models.blocks import from_blocks, to_blocks
from ldm_jax.models.conv.conv import Conv
from ldm_jax.models.layers import (
  Downsample,
  Network,
  ResidualBlock,
  Upsample,
  kernels_and_strides,
  per_level,
)
from ldm_jax.models.norms import GroupNorm
from ldm_jax.types import Array

UPSAMPLING = ('nearest', 'linear', 'transposed')
ACTIVATIONS = {None: lambda x: x, 'sigmoid': nn.sigmoid, 'tanh': jnp.tanh}
# Standard deviations from exp(-15) to exp(10); others are numerical errors. [KL]
LOG_VARIANCE_RANGE = (-30.0, 20.0)


class Chain(nn.Module):
  """Modules applied one after the other, named blocks_0, blocks_1, ..."""

  makers: tuple

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for i, make in enumerate(self.makers):
      x = make(name=f'blocks_{i}')(x)
    return x


class Silu(nn.Module):
  """The activation as a module, for `Chain`."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return nn.silu(x)


class Autoencoder(Network):
  """Encoder, latent and decoder.

  Attributes:
    in_channels: of the volume. out_channels: of the reconstruction, default the same.
    channels: per level, finest first.
    latent_channels: of the latent.
    num_codes: size of the codebook with which the decoder quantises the latent; 0 for a
      Gaussian latent.
    num_res_blocks: per level, or one number.
    kernels: per level, or one kernel; two or three axes.
    strides: between two levels, or one for all; None halves every axis.
    attention_levels: bool per level, or one: self-attention after each block.
    nonlocal_attention: residual block, attention, residual block next to the latent;
      one bool, or one for the encoder and one for the decoder.
    attention_projects: whether attention ends in an out_proj.
    norm_groups, norm_eps: of every group norm.
    pointwise_blocks: the second convolution of each residual block has kernel 1.
    down_kernel: of the strided convolutions; None for the kernels of the levels.
    resample_to_next: the convolution between two levels changes the number of channels,
      not the next level's first residual block.
    head_channels: between the encoder or decoder and the latent, one number or two;
      None for latent_channels.
    decoder_extra_blocks: residual blocks per level that only the decoder has.
    last_activation: silu between the last norm and the last convolution of both.
    patch: voxels of a block per axis. The network works on the grid of blocks, with
      their voxels as channels, and its last convolution forms each block; () for
      blocks of one voxel. The finest grid costs most, and sees the least.
    upsampling: 'nearest' repeats voxels and 'linear' interpolates, each before a
      convolution; 'transposed' is a transposed convolution.
    out_activation: None, 'sigmoid' or 'tanh' on the reconstruction.
    num_labels: channels of a label map behind those of the volume: one-hot in x, logits
      in the reconstruction; 0 for none.
    dtype: type of the products; parameters and norms stay float32.
  """

  in_channels: int = 1
  channels: tuple = (16, 32)
  latent_channels: int = 4
  num_res_blocks: tuple | int = 1
  kernels: tuple = (3, 3, 3)
  strides: tuple | None = None
  norm_groups: int = 8
  attention_levels: tuple | bool | None = None
  nonlocal_attention: bool | tuple = False
  out_activation: str | None = 'sigmoid'
  out_channels: int | None = None
  norm_eps: float = 1e-6
  pointwise_blocks: bool = False
  down_kernel: tuple | None = None
  resample_to_next: bool = False
  head_channels: int | tuple | None = None
  attention_projects: bool = True
  decoder_extra_blocks: int = 0
  last_activation: bool = False
  patch: tuple = ()
  upsampling: str = 'nearest'
  num_codes: int = 0
  num_labels: int = 0
  dtype: jnp.dtype | None = None

  def setup(self) -> None:
    if self.out_activation not in ACTIVATIONS:
      raise ValueError(
        f'out_activation is {self.out_activation!r}, expected one of '
        f'{tuple(ACTIVATIONS)}; change autoencoder.model.out_activation'
      )
    if self.upsampling not in UPSAMPLING:
      raise ValueError(
        f'upsampling is {self.upsampling!r}, expected one of {UPSAMPLING}; change '
        'autoencoder.model.upsampling'
      )
    kernels, _ = self._plan()
    one = (1,) * len(kernels[0])
    self.encoder = Chain(self._encoder())
    self.decoder = Chain(self._decoder())
    self.quant_conv_mu = self._conv(self.latent_channels, one)()
    if self.num_codes:
      self.quantizer = Quantizer(self.num_codes, self.latent_channels)
    else:
      self.quant_conv_log_sigma = self._conv(self.latent_channels, one)()
    self.post_quant_conv = self._conv(self._head(1), one)()

  @property
  def is_gaussian(self) -> bool:
    """Whether the latent has a standard deviation."""
    return not self.num_codes

  def encode(self, x: Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation (b,*space/s,latent_channels) of z given x.

    With a codebook: the latent before quantisation, and zeros.
    """
    h = self.encoder(to_blocks(x, self.patch) if self.patch else x)
    if self.num_codes:
      z = self.quant_conv_mu(h)
      return z, jnp.zeros_like(z)
    log_variance = jnp.clip(self.quant_conv_log_sigma(h), *LOG_VARIANCE_RANGE)
    return self.quant_conv_mu(h), jnp.exp(log_variance / 2)

  def decode(self, z: Array) -> jax.Array:
    """Reconstruction (b,*space,out_channels + num_labels) of latents."""
    z = self.quantizer(z) if self.num_codes else z
    x_hat = self.decoder(self.post_quant_conv(z))
    if self.patch:
      x_hat = from_blocks(x_hat, self.patch)
    activate = ACTIVATIONS[self.out_activation]
    if not self.num_labels:
      return activate(x_hat)
    x_hat, logits = x_hat[..., : -self.num_labels], x_hat[..., -self.num_labels :]
    return jnp.concatenate([activate(x_hat), logits], -1)

  def __call__(
    self, x: jax.Array, key: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Reconstruction, mean and standard deviation; without a key, z is the mean."""
    self.latent_size(x.shape[1:-1])
    mean, std = self.encode(x)
    z = mean
    if key is not None:
      z = mean + std * jax.random.normal(key, mean.shape, mean.dtype)
    return self.decode(z), mean, std

  def codes(self, x: Array) -> jax.Array:
    """Index (b,*space/s) of each voxel's code."""
    return self.quantizer.indices(self.encode(x)[0])

  def codebook_losses(
    self, z: jax.Array, picked: Array, keys: jax.Array, learned_by: str
  ) -> dict[str, jax.Array]:
    """`Quantizer.losses` of latents (b,*space/s,latent_channels)."""
    return self.quantizer.losses(z, picked, keys, learned_by)

  def latent_size(self, size: Sequence[int]) -> tuple[int, ...]:
    """Spatial size of the latent of volumes of this size.

    Raises: ValueError if the strides do not divide it, because the reconstruction would
      have another size.
    """
    _, strides = self._plan()
    steps = (*strides, self.patch) if self.patch else strides
    factors = tuple(math.prod(s) for s in zip(*steps, strict=True))
    factors = factors or (1,) * len(size)
    if len(factors) != len(size) or any(
      n % f for n, f in zip(size, factors, strict=False)
    ):
      raise ValueError(
        f'volumes have the size {tuple(size)}, expected multiples of {factors}; change '
        'data.preprocess.shape, autoencoder.model.strides or autoencoder.model.patch'
      )
    return tuple(n // f for n, f in zip(size, factors, strict=True))

  def _plan(self):
    return kernels_and_strides(self.kernels, self.strides, len(self.channels))

  def _levels(self, order, resample, extra=0):
    """Makers of the levels' blocks in this order, with resample(i, j) in between."""
    kernels, _ = self._plan()
    num = len(self.channels)
    num_res_blocks = per_level(self.num_res_blocks, num, 'num_res_blocks')
    attention = per_level(self.attention_levels, num, 'attention_levels')
    makers = []
    for i, following in zip(order, [*order[1:], None], strict=True):
      for _ in range(num_res_blocks[i] + extra):
        makers.append(self._residual(self.channels[i], kernels[i]))
        makers += [self._attention()] if attention[i] else []
      makers += [] if following is None else [resample(i, following)]
    return makers

  def _encoder(self):
    kernels, strides = self._plan()

    def down(i, j):
      features = self.channels[j if self.resample_to_next else i]
      kernel = self.down_kernel or kernels[i]
      return functools.partial(
        Downsample, features, kernel, strides[i], True, self.dtype
      )

    return (
      self._conv(self.channels[0], kernels[0]),
      *self._levels(range(len(self.channels)), down),
      *self._nonlocal(0),
      *self._norm(),
      self._conv(self._head(0), kernels[-1]),
    )

  def _decoder(self):
    kernels, strides = self._plan()

    def up(i, j):
      features = self.channels[j if self.resample_to_next else i]
      if self.upsampling == 'transposed':
        return functools.partial(TransposedUpsample, features, strides[j], self.dtype)
      kind = LinearUpsample if self.upsampling == 'linear' else Upsample
      return functools.partial(kind, features, kernels[j], strides[j], self.dtype)

    num_outputs = (self.out_channels or self.in_channels) + self.num_labels
    return (
      self._conv(self.channels[-1], kernels[-1]),
      *self._nonlocal(1),
      *self._levels(range(len(self.channels))[::-1], up, self.decoder_extra_blocks),
      *self._norm(),
      self._conv(math.prod(self.patch) * num_outputs, kernels[0]),
    )

  def _nonlocal(self, side):
    if not _of_side(self.nonlocal_attention, side):
      return ()
    block = self._residual(self.channels[-1], self._plan()[0][-1])
    return block, self._attention(), block

  def _norm(self):
    norm = functools.partial(
      GroupNorm, self.norm_groups, self.norm_eps, dtype=self.dtype
    )
    return (norm, Silu) if self.last_activation else (norm,)

  def _conv(self, features, kernel_size):
    return functools.partial(Conv, features, kernel_size, dtype=self.dtype)

  def _residual(self, features, kernel_size):
    return functools.partial(
      ResidualBlock,
      features,
      kernel_size,
      self.norm_groups,
      self.norm_eps,
      pointwise=self.pointwise_blocks,
      dtype=self.dtype,
    )

  def _head(self, side):
    return _of_side(self.head_channels, side) or self.latent_channels

  def _attention(self):
    return functools.partial(
      AttentionBlock,
      self.norm_groups,
      self.norm_eps,
      dtype=self.dtype,
      projects=self.attention_projects,
    )


def _of_side(value, side):
  """The encoder's (0) or the decoder's (1) entry of one value or two."""
  return value[side] if isinstance(value, tuple) else value
