"""The sections `autoencoder` and `encode`: default values and rules."""

import math
from typing import Any

from ldm_jax.config.parsing import (
  flatten,
  require,
  require_choices,
  require_steps,
)
from ldm_jax.types import Config

CHOICES = {
  'autoencoder.optimizer': ('adam', 'muon'),
  'autoencoder.model.kind': ('network', 'wavelet'),
  'autoencoder.codebook.learned_by': ('averages', 'gradient'),
  'autoencoder.perceptual.network': ('public', 'vgg16', 'radimagenet', 'medicalnet'),
  'encode.std': ('channel', 'latent'),
}
RECIPES = ('kl', 'vq', 'adversarial', 'wavelet')


def use_recipe(config: Config, kind: str) -> None:
  """Sets `config.autoencoder` for one of RECIPES; docs/autoencoders.md compares them.

  The wavelet draws scans without label maps.

  Raises:
    ValueError: for another kind.
  """
  if kind not in RECIPES:
    raise ValueError(f'autoencoder={kind} is not known; choose one of {RECIPES}.')
  section = config.autoencoder
  if kind == 'vq':
    section.model.num_codes = 256
  if kind == 'wavelet':
    section.model.kind, section.steps = 'wavelet', 0
    section.model.strides = section.model.strides[:1]
    section.model.latent_channels = math.prod(section.model.strides[0])
    config.data.labels = ''  # it learns nothing, so it knows no labels
  if kind == 'adversarial':
    planar = all(kernel[0] == 1 for kernel in section.model.kernels)
    # Features and adversary see what the autoencoder sees: slices, where these are
    # thick, or the three planes of an isotropic volume.
    planes = (0,) if planar else (0, 1, 2)
    section.perceptual.weight, section.adversarial.weight = 0.3, 0.1
    for part in (section.perceptual, section.adversarial):
      part.planes, part.kernel, part.strides = planes, (3, 3), (2, 2)
    section.adversarial.start = section.steps // 2


def section() -> dict[str, Any]:
  """The keys of `autoencoder`: network, losses, codebook, adversary."""
  return {
    'model': {
      # 'network', or 'wavelet': Haar coefficients of blocks of `strides`, of which the
      # coarsest `latent_channels` are kept. Nothing is learned (steps are 0).
      'kind': 'network',
      # Voxels of a block per axis: the network works on the grid of blocks, their
      # voxels as channels. () for blocks of one voxel.
      'patch': (1, 2, 2),
      'channels': (32, 64),
      'latent_channels': 8,
      # Above 0, the latent is discrete: this many codes (VQ).
      'num_codes': 0,
      'num_res_blocks': 1,
      # (1,3,3) and (1,2,2) never mix or shrink the 10 mm slices (Daum 2024).
      'kernels': ((1, 3, 3), (1, 3, 3)),
      'strides': ((1, 2, 2),),
      'norm_groups': 8,
      'out_activation': 'sigmoid',
      # Residual blocks before the first stride; None: as on the other levels.
      'num_finest_blocks': None,
      # Self-attention after each block of a level, and around the latent.
      'attention_levels': None,
      'nonlocal_attention': False,
      # Kernel 1 in the second half of each residual block, strided convolutions with a
      # kernel and a width of their own, channels before the latent: what Daum 2024's
      # parameter count asks for.
      'pointwise_blocks': False,
      'down_kernel': None,
      'resample_to_next': False,
      'head_channels': None,
      # 'transposed' forms each voxel of a block by weights of its own, at the cost of
      # the coarse grid; 'nearest' and 'linear' convolve on the fine one.
      'upsampling': 'transposed',
    },
    'steps': 400,
    'batch_size': 4,
    # 'muon' balances the directions of each matrix; it needs two to three times fewer
    # steps than 'adam' and larger rates.
    'optimizer': 'muon',
    'learning_rate': 1.5e-2,
    'l1_weight': 1.0,
    'mse_weight': 10.0,
    # Per latent element, reached after `kl_warmup` steps: no posterior collapse. A
    # smaller one reconstructs better and leaves latents that are harder to learn.
    'kl_weight': 2e-3,
    'kl_warmup': 100,
    # Nats per element and channel below which the divergence is not penalised (Kingma
    # 2016).
    'free_bits': 0.0,
    # Share of the examples whose latent is turned and scaled in its planes before it is
    # decoded, and the volume alike (Kouzelis 2025), at most so many degrees and by
    # exp(+-log_scale). With 0.5 samples follow their attributes more closely and are
    # less sharp (docs/recipe.md). After the share `until` of the steps the decoder is
    # trained alone, which brings some sharpness back. Not with codes: between two of
    # them there is nothing to decode.
    'equivariance': {
      'share': 0.0,
      'until': 0.6,
      'rotation_deg': 30.0,
      'log_scale': 0.25,
    },
    'codebook': {
      # 'averages' of the voxels that chose a code, or the 'gradient' of a loss.
      'learned_by': 'averages',
      'decay': 0.99,
      # Holds the encoder to the codes (van den Oord 2017, beta).
      'commitment': 0.25,
      # Codes used less than this share of the uniform usage are replaced.
      'revive_below': 0.1,
    },
    'perceptual': {
      'weight': 0.0,
      # 'public': learned from data.public before the autoencoder. Or 'vgg16',
      # 'radimagenet' (2D), 'medicalnet' (3D), with their published file in `weights`.
      'network': 'public',
      'weights': '',
      # Axes along which 2D networks see slices, (0, 1, 2) for 2.5D; () for a 3D one.
      'planes': (),
      # Share of the slices compared at each step.
      'share': 1.0,
      # Of the network 'public'.
      'channels': (8, 16, 32),
      'kernel': (3, 3, 3),
      'strides': (2, 2, 2),
      'steps': 200,
      'batch_size': 8,
      'learning_rate': 3e-3,
    },
    'adversarial': {
      'weight': 0.0,
      # Step at which the discriminator comes in: first the reconstruction settles.
      'start': 250,
      # Scale the adversarial gradient to the reconstruction's (Esser 2021).
      'adaptive': True,
      'learning_rate': 5e-4,
      # As in `perceptual`; kernels and strides then have two axes.
      'planes': (),
      'num_scales': 1,
      'channels': (16, 32, 64),
      'kernel': (1, 3, 3),
      'strides': (1, 2, 2),
    },
    # Of the label channels where data.labels is 'joint'.
    'labels': {
      # Of cross-entropy and soft Dice, beside l1_weight and mse_weight.
      'weight': 0.1,
      # Share of examples whose labels the encoder does not see and the decoder must
      # tell, so that scans without labels can be encoded and edited, too.
      'hidden': 0.1,
    },
    'ema_decay': 0.99,
    # Folder of `ldm-jax-convert`, whose options replace `model`, or the folder
    # checkpoints/autoencoder of another run: training starts from these weights, whose
    # patients must be public too; with 0 steps they stay. '' for random ones.
    'init': '',
  }


def latents() -> dict[str, Any]:
  """The keys of `encode`: what is kept of a volume, and its scale."""
  return {
    # True keeps the posterior's log variance beside its mean, and pre-training
    # draws its latents anew at every step; the mean alone is enough where the
    # deviations are small (kl_weight near 0), and halves the store.
    'logvar': False,
    # What latents are divided by: for the whole 'latent' the largest deviation of its
    # channels, or each 'channel' by its own. Channels that the KL divergence has
    # emptied, and fine bands of a wavelet, stay small, so that the denoiser does not
    # learn them at the cost of the others.
    'std': 'latent',
  }


def check(config: Config) -> None:
  """Raises ValueError for invalid values of `autoencoder` and `encode`."""
  require_choices(config, CHOICES)
  section = config.autoencoder
  if section.model.kind == 'wavelet':
    value = section.steps, section.init
    holds = section.steps == 0 and not section.init
    required = "0 and no autoencoder.init, since model.kind='wavelet' learns nothing"
    require(holds, 'autoencoder.steps', value, required)
  else:
    require_steps(config, 'autoencoder')
  weights = [f'{name}_weight' for name in ('l1', 'mse', 'kl')]
  for key in (*weights, 'free_bits', 'perceptual.weight', 'adversarial.weight'):
    value = flatten(section)[key]
    require(value >= 0, f'autoencoder.{key}', value, 'a number from 0 up')
  for key in ('share', 'until'):
    value = section.equivariance[key]
    require(0 <= value <= 1, f'autoencoder.equivariance.{key}', value, 'from 0 to 1')
  key, value = 'autoencoder.labels.weight', section.labels.weight
  require(value > 0, key, value, 'a positive number')
  key, value = 'autoencoder.labels.hidden', section.labels.hidden
  require(0 <= value < 1, key, value, 'a share from 0, below 1')
  value = section.codebook.decay
  require(0 < value < 1, 'autoencoder.codebook.decay', value, 'between 0 and 1')
  perceptual = section.perceptual
  key, value = 'autoencoder.perceptual.share', perceptual.share
  require(0 < value <= 1, key, value, 'a share above 0, at most 1')
  if not perceptual.weight:
    return
  network = perceptual.network
  key, value = 'autoencoder.perceptual.weights', perceptual.weights
  if network == 'public':
    require(not value, key, value, "'': the public network is learned, not read")
    return
  require(bool(value), key, value, f'the file with the weights of {network}')
  key, value = 'autoencoder.perceptual.planes', perceptual.planes
  if network == 'medicalnet':
    require(not value, key, value, '(): MedicalNet sees whole volumes')
  else:
    require(len(value), key, value, f'some of the axes (0, 1, 2): {network} is 2D')
