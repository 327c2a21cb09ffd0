"""The section `diffusion`: default values and rules."""

from typing import Any

from ldm_jax.config.parsing import require, require_choices, require_steps
from ldm_jax.types import Config

# How attributes reach the denoiser, any of them together.
WAYS = ('attention', 'embedding', 'channels', 'mask')
CHOICES = {
  'diffusion.optimizer': ('adam', 'muon'),
  'diffusion.weights': ('', 'private_histogram'),
  'diffusion.schedule.name': ('linear', 'scaled_linear', 'sigmoid', 'cosine', 'flow'),
  'diffusion.prediction': ('epsilon', 'v', 'sample', 'flow'),
  'diffusion.model.kind': ('unet', 'dit', 'daum24'),
  'diffusion.model.attention': ('volume', 'depth'),
  'diffusion.model.dtype': ('float32', 'bfloat16'),
}


def section() -> dict[str, Any]:
  """The keys of `diffusion`: process, network, conditions, pre-training."""
  return {
    'schedule': {
      'name': 'cosine',
      'num_timesteps': 1000,
      # Of the linear schedules.
      'beta_start': 1e-4,
      'beta_end': 2e-2,
      # True lets training see the pure noise that sampling starts from (Lin 2024);
      # needs a prediction other than epsilon. Without it samples lack part of the
      # data's spread of brightness.
      'zero_terminal_snr': True,
      # Of 'flow': above 1 spends more times near the noise (Esser 2024).
      'shift': 1.0,
    },
    # 'flow' goes with the schedule 'flow', 'v' with all others.
    'prediction': 'v',
    # Weight min(snr, gamma) of the clean latent's error (Hang 2023, gamma 5). None
    # leaves every time's error of the prediction alone.
    'min_snr_gamma': None,
    'times': times('uniform'),
    'model': {
      # 'unet'; 'dit', a transformer over patches with the options of `dit`; or
      # 'daum24', the UNet of the paper.
      'kind': 'unet',
      'channels': (48, 64),
      'num_res_blocks': 1,
      # The coarse level is cheap enough to make neighbouring slices agree.
      'kernels': ((1, 3, 3), (3, 3, 3)),
      'strides': ((1, 2, 2),),
      # 'volume': all voxels at once; 'depth': within slices, then along depth, for
      # grids too large for the first or slices too thick.
      'attention': 'volume',
      # The middle block attends in any case.
      'attention_levels': (False, False),
      'num_head_channels': 16,
      # None: as many heads as fill the channels.
      'num_heads': None,
      'norm_groups': 8,
      # Resample inside residual blocks instead of by convolutions.
      'resblock_updown': False,
      # The embedding of time and attributes scales and shifts what leaves a block's
      # second norm (Dhariwal 2021); False adds it before that norm, as MONAI does.
      'modulates': True,
      'dit': {
        # Voxels of a token; a patch of one slice leaves thick slices apart.
        'patch': (1, 2, 2),
        'width': 128,
        'num_blocks': 4,
        'num_head_channels': 32,
        'mlp_factor': 4,
      },
      # True computes each block again backwards: a third more work, less memory on
      # GPU and TPU (none is saved on CPU).
      'remat': False,
      # Of products; 'bfloat16' pays on accelerators. Parameters, norms and softmax
      # stay float32.
      'dtype': 'float32',
    },
    'conditioner': {
      'width': 16,
      'num_heads': 4,
      # None: width / num_heads.
      'head_dim': None,
      # Sines and cosines of each value beside the value: 0 is the paper's. More than 1
      # makes the map from values to shapes less smooth than it is (docs/recipe.md).
      'num_frequencies': 1,
      # True: one learned token for whatever is missing, one for what is dropped.
      'shared_absent': False,
      # Tokens for 'attention', an 'embedding' beside that of the time, and 'channels'
      # beside the latent (Pinaya 2022); any of them together. custom_diffusion and
      # pix2pix_zero need 'attention', which costs a fifth of a short run's time. 'mask'
      # adds a label map beside the latent: scans are drawn for given maps
      # (sample.masks; docs/train-on-synthetic.md).
      'by': ('embedding', 'channels'),
    },
    'text': {
      # Token embeddings of any text encoder: 'text/{patient}.npy' or '{id}.npz',
      # see data/store/text_embeddings.py. '' for no text.
      'files': '',
      # Room for tokens and their width: CLIP's, as in Stable Diffusion 1.
      'num_tokens': 77,
      'width': 768,
      # Share of examples trained with attributes only, so that requests without
      # text are understood.
      'missing_probability': 0.1,
    },
    # Where conditioner.by has 'mask': share of examples trained without the label map,
    # so that requests without one are understood.
    'mask': {'missing_probability': 0.1},
    # Share of examples trained without condition, for classifier-free guidance.
    'drop_probability': 0.1,
    # How often public volumes are drawn: '' all alike, 'private_histogram' as their
    # classes are among the private patients, a release of its own
    # (adapt.privacy.releases.pretraining; PrivImage 2024).
    'weights': '',
    'steps': 1000,
    'batch_size': 16,
    # 'muon' or 'adam', as of `autoencoder`.
    'optimizer': 'muon',
    'learning_rate': 6e-3,
    'ema_decay': 0.995,
    # Folder of a UNet by `ldm-jax-convert`: its options replace `model`, its
    # weights are where training starts. '' for random ones.
    'init': '',
  }


def times(density: str) -> dict[str, Any]:
  """The keys of `diffusion.times` and `adapt.times`."""
  return {
    # How often a training step draws each time: 'uniform', 'logit_normal' (Esser
    # 2024), 'beta' (with b = 1 a power), 'piecewise', or 'private', the pieces of
    # Ghalebikesabi 2023 for private training. x = 0 is clean, x = 1 noise.
    'density': density,
    'logit_mean': 0.0,
    'logit_std': 1.0,
    'beta': (1.0, 1.0),
    # (from, to, share) in x; ((0.0, 0.03, 0.05), (0.03, 0.8, 0.9), (0.8, 1.0, 0.05)).
    'pieces': (),
    # True divides each loss by its time's probability: the objective stays uniform,
    # only its variance changes. False lets the density weigh the times.
    'importance': False,
  }


def check(config: Config) -> None:
  """Raises ValueError for invalid values of `config.diffusion`."""
  require_choices(config, CHOICES)
  require_steps(config, 'diffusion')
  value = config.diffusion.conditioner.by
  holds = len(value) and set(value) <= set(WAYS)
  require(holds, 'diffusion.conditioner.by', value, f'some of {WAYS}')
  if 'mask' in value:
    _check_mask(config)
  text = config.diffusion.text
  for key in ('num_tokens', 'width'):
    value = text[key]
    require(value > 0, f'diffusion.text.{key}', value, 'a positive whole number')
  key, value = 'diffusion.text.missing_probability', text.missing_probability
  require(0 <= value <= 1, key, value, 'a number from 0 to 1')


def _check_mask(config: Config) -> None:
  key, value = 'evaluate.labels', config.evaluate.labels
  where = "where diffusion.conditioner.by has 'mask'"
  require(len(value) > 1, key, value, f'at least two label values {where}')
  value = config.adapt.pairs.use
  require(not value, 'adapt.pairs.use', value, f'False {where}')
  value = config.adapt.augment.multiplicity
  required = f'1 {where}, since its maps do not move with the versions of a scan'
  require(value == 1, 'adapt.augment.multiplicity', value, required)
  key, value = 'diffusion.mask.missing_probability', config.diffusion.mask
  value = value.missing_probability
  require(0 <= value < 1, key, value, 'a share from 0, below 1')
