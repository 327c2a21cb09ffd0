"""What a config must satisfy before any data are read. Knows no room but the config."""

import math

from ldm_jax import checks_counterfactual, checks_drift, checks_pairs
from ldm_jax.config import flatten, require_local
from ldm_jax.config import require as _require

METHODS = (
  *('full', 'attention', 'lora'),
  *('textual_inversion', 'dreambooth', 'custom_diffusion'),
)
# Who is drawn and how noise is added in private training: privacy.schemes.
GRADIENTS = ('auto', 'vmap', 'ghost')
CLIPPING = ('constant', 'normalised', 'per_layer', 'adaptive')
MECHANISMS = ('poisson', 'truncated_poisson', 'banded', 'full_batch')
# How attributes reach the denoiser, any of them together.
WAYS = ('attention', 'embedding', 'channels')
FIGURES = (
  *('distances', 'ms_ssim', 'reconstruction', 'memorisation', 'control', 'causal'),
)
CHOICES = {
  'autoencoder.model.kind': ('network', 'wavelet'),
  'encode.std': ('channel', 'latent'),
  'autoencoder.codebook.learned_by': ('averages', 'gradient'),
  'autoencoder.perceptual.network': ('public', 'vgg16', 'radimagenet', 'medicalnet'),
  'diffusion.schedule.name': ('linear', 'scaled_linear', 'sigmoid', 'cosine', 'flow'),
  'diffusion.prediction': ('epsilon', 'v', 'sample', 'flow'),
  'diffusion.model.kind': ('unet', 'dit', 'daum24'),
  'diffusion.model.attention': ('volume', 'depth'),
  'diffusion.model.dtype': ('float32', 'bfloat16'),
  'adapt.method': METHODS,
  'adapt.drift.variant': ('prior', 'posterior_constant', 'init_only'),
  'adapt.drift.target': ('shifted', 'raw'),
  'adapt.drift.search': (
    *('', 'grid', 'closed_form', 'loss'),
    *('private_mean', 'private_loss'),
  ),
  # From the public pre-training, or from random weights.
  'adapt.init': ('diffusion', 'scratch'),
  'adapt.optimizer': ('adam', 'sgd'),
  'adapt.schedule': ('constant', 'cosine'),
  'adapt.prior.source': ('generated', 'public'),
  'sample.solver': ('ddim', 'ddpm', 'euler', 'heun', 'dpmpp_2m', 'unipc'),
  'sample.spacing': ('linspace', 'leading', 'trailing', 'monai'),
  'sample.model': ('adapt', 'diffusion'),
  'counterfactual.editor': ('ddim', 'ddpm', 'pairs', 'pix2pix_zero', 'sdedit'),
}


def check(config):
  """Checks what needs no data.

  Raises:
    ValueError: naming the key, what came and what is required.
  """
  for key, value in flatten(config).items():
    if key != 'name':
      require_local(f'config.{key}', value)
  required = 'a section; for no drift set --config.adapt.drift.value=0'
  _require(config.adapt.drift is not None, 'adapt.drift', None, required)
  for key in ('autoencoder', 'diffusion'):
    value, init = config[key].steps, config[key].init
    if key == 'autoencoder' and config.autoencoder.model.kind == 'wavelet':
      holds = value == 0 and not init
      required = "0 and no autoencoder.init, since model.kind='wavelet' learns nothing"
      _require(holds, 'autoencoder.steps', (value, init), required)
      continue
    required = f'above 0, or 0 with --config.{key}.init'
    _require(value > 0 or (value == 0 and init), f'{key}.steps', value, required)
  for key in (
    'autoencoder.batch_size',
    'autoencoder.perceptual.steps',
    'autoencoder.perceptual.batch_size',
    'autoencoder.adversarial.num_scales',
    'diffusion.batch_size',
    'adapt.batch_size',
    'adapt.tokens.num',
    'adapt.prior.num',
    'adapt.prior.steps',
    'adapt.prior.batch_size',
    'sample.num',
    'sample.steps',
    'sample.batch_size',
    'counterfactual.null_cycles',
    'evaluate.segmenter.steps',
    'evaluate.segmenter.batch_size',
    'run.log_every',
    'run.checkpoint_every',
    'audit.participations',
  ):
    value = flatten(config)[key]
    _require(value > 0, key, value, 'a positive whole number')
  value = config.doctor.max_records
  _require(value >= 0, 'doctor.max_records', value, 'a whole number, 0 for all scans')
  value = config.doctor.max_voxels
  _require(value >= 0, 'doctor.max_voxels', value, 'a whole number from 0 up')
  value = config.adapt.examples_per_patient
  _require(value >= 0, 'adapt.examples_per_patient', value, 'a whole number, 0 for all')
  for key in ('autoencoder', 'diffusion', 'adapt', 'evaluate.segmenter'):
    value = flatten(config)[f'{key}.learning_rate']
    holds = value > 0 and math.isfinite(value)
    _require(holds, f'{key}.learning_rate', value, 'a positive number')
  for key, choices in CHOICES.items():
    value = flatten(config)[key]
    _require(value in choices, key, value, f'one of {", ".join(choices)}')
  ways = config.diffusion.conditioner.by
  key = 'diffusion.conditioner.by'
  _require(len(ways) and set(ways) <= set(WAYS), key, ways, f'some of {WAYS}')
  text = config.diffusion.text
  for key in ('num_tokens', 'width'):
    value = text[key]
    _require(value > 0, f'diffusion.text.{key}', value, 'a positive whole number')
  value = text.missing_probability
  key = 'diffusion.text.missing_probability'
  _require(0 <= value <= 1, key, value, 'a number from 0 to 1')
  key = 'sample.text'
  holds = text.files or not config.sample.text
  _require(holds, key, config.sample.text, "'' where diffusion.text.files is ''")
  only = config.evaluate.only
  _require(set(only) <= set(FIGURES), 'evaluate.only', only, f'some of {FIGURES}')
  timesteps = config.diffusion.schedule.num_timesteps
  for key in ('sample.steps', 'counterfactual.steps', 'adapt.prior.steps'):
    value = flatten(config)[key]
    _require(
      value <= timesteps,
      key,
      value,
      f'at most diffusion.schedule.num_timesteps = {timesteps}',
    )
  checks_counterfactual.check(config)
  checks_drift.check(config)
  _check_transformations(config.augment, 'augment')
  value = config.augment.copies
  _require(value >= 0, 'augment.copies', value, 'a number from 0 up')
  value = config.run.workers
  _require(value >= 0, 'run.workers', value, 'a whole number from 0 up')
  _check_autoencoder(config.autoencoder)
  total = config.ledger.total_epsilon
  holds = total is None or 0 < total < math.inf
  _require(holds, 'ledger.total_epsilon', total, 'a positive number, or None')
  _check_adaptation(config)
  checks_pairs.check(config)
  if config.adapt.privacy is not None:
    _check_privacy(config.adapt.privacy)
    _check_releases(config.adapt.privacy)
    _check_mechanism(config.adapt.privacy, config.adapt.steps)
    holds = total is None or config.adapt.privacy.epsilon <= total
    required = f'at least adapt.privacy.epsilon = {config.adapt.privacy.epsilon}'
    _require(holds, 'ledger.total_epsilon', total, required)
  _check_private_prior(config)
  value = config.audit.num_canaries
  _require(value >= 8, 'audit.num_canaries', value, 'at least 8')
  value = config.audit.confidence
  _require(0 < value < 1, 'audit.confidence', value, 'a number between 0 and 1')
  return config


def _check_autoencoder(section):
  weights = [f'{name}_weight' for name in ('l1', 'mse', 'kl')]
  for key in (*weights, 'free_bits', 'perceptual.weight', 'adversarial.weight'):
    value = flatten(section)[key]
    _require(value >= 0, f'autoencoder.{key}', value, 'a number from 0 up')
  value = section.codebook.decay
  _require(0 < value < 1, 'autoencoder.codebook.decay', value, 'between 0 and 1')
  perceptual = section.perceptual
  key, value = 'autoencoder.perceptual.share', perceptual.share
  _require(0 < value <= 1, key, value, 'a share above 0, at most 1')
  if not perceptual.weight:
    return
  network = perceptual.network
  key, value = 'autoencoder.perceptual.weights', perceptual.weights
  if network == 'public':
    _require(not value, key, value, "'': the public network is learned, not read")
    return
  _require(bool(value), key, value, f'the file with the weights of {network}')
  key, value = 'autoencoder.perceptual.planes', perceptual.planes
  if network == 'medicalnet':
    _require(not value, key, value, '(): MedicalNet sees whole volumes')
  else:
    _require(len(value), key, value, f'some of the axes (0, 1, 2): {network} is 2D')


def _check_transformations(section, prefix):
  for key in ('shift', 'rotation_deg'):
    value = section[key]
    holds = len(value) == 3 and min(value) >= 0
    _require(
      holds, f'{prefix}.{key}', value, 'three numbers from 0 up: axes d, h and w'
    )
  value = section.gamma
  _require(value >= 0, f'{prefix}.gamma', value, 'a number from 0 up')


def _check_adaptation(config):
  section = config.adapt
  least = 0 if section.privacy is None else 1
  required = (
    "1 or more; without privacy also 0, which is the model 'diffusion' as it is"
  )
  _require(section.steps >= least, 'adapt.steps', section.steps, required)
  for key in ('rank', 'alpha'):
    _require(section.lora[key] > 0, f'adapt.lora.{key}', section.lora[key], 'above 0')
  key, value = 'adapt.lora.targets', section.lora.targets
  _require(len(value), key, value, 'at least one regular expression')
  key, value = 'adapt.ema_decay', section.ema_decay
  holds = len(value) and all(0 <= decay < 1 for decay in value)
  _require(holds and len(set(value)) == len(value), key, value, 'decays in [0, 1)')
  key, chosen = 'sample.ema_decay', config.sample.ema_decay
  holds = chosen is None or chosen in value
  _require(holds, key, chosen, f'None or one of adapt.ema_decay, {tuple(value)}')
  key, value = 'adapt.prior.weight', section.prior.weight
  _require(value is None or value >= 0, key, value, 'a number from 0 up, or None')
  _check_transformations(section.augment, 'adapt.augment')
  key, value = 'adapt.augment.multiplicity', section.augment.multiplicity
  _require(value >= 1, key, value, 'a whole number from 1 up')
  moves = [*section.augment.shift, *section.augment.rotation_deg, section.augment.gamma]
  required = '1, or a transformation (shift, rotation_deg, gamma) above 0 beside it'
  _require(value == 1 or any(moves), key, value, required)


def _check_privacy(privacy):
  prefix = 'adapt.privacy'
  epsilon, delta = privacy.epsilon, privacy.delta
  _require(
    epsilon > 0 and math.isfinite(epsilon),
    f'{prefix}.epsilon',
    epsilon,
    'a positive finite number; for training without privacy set adapt.privacy=None',
  )
  _require(0 < delta < 1, f'{prefix}.delta', delta, 'a number between 0 and 1')
  for key in ('clip_norm', 'batch_size', 'noise_multiplicity', 'chunk_size'):
    _require(privacy[key] > 0, f'{prefix}.{key}', privacy[key], 'a positive number')
  key, value = 'microbatch', privacy.microbatch
  _require(value >= 0, f'{prefix}.{key}', value, '0 (all of a chunk) or more')
  key, value = 'clipping', privacy.clipping
  _require(value in CLIPPING, f'{prefix}.{key}', value, f'one of {CLIPPING}')
  key, value = 'quantile', privacy.quantile
  _require(0 < value < 1, f'{prefix}.{key}', value, 'a share between 0 and 1')
  key, value = 'gradients', privacy.gradients
  _require(value in GRADIENTS, f'{prefix}.{key}', value, f'one of {GRADIENTS}')


def _check_releases(privacy):
  prefix, section = 'adapt.privacy.releases.attributes', privacy.releases.attributes
  value = section.epsilon
  holds = value is None or (
    isinstance(value, int | float)
    and not isinstance(value, bool)
    and 0 < value < privacy.epsilon
  )
  required = f'None, or above 0 and below adapt.privacy.epsilon = {privacy.epsilon:g}'
  _require(holds, f'{prefix}.epsilon', value, required)
  value = section.num_bins
  _require(value > 0, f'{prefix}.num_bins', value, 'a positive whole number')


def _check_private_prior(config):
  if config.sample.requests != 'private_prior':
    return
  privacy = config.adapt.privacy
  released = privacy is not None and privacy.releases.attributes.epsilon is not None
  holds = released and config.data.private.layout
  required = (
    'another source where no prior is released (adapt.privacy.releases.attributes.'
    'epsilon is None, or there is no private cohort or no privacy)'
  )
  _require(holds, 'sample.requests', 'private_prior', required)


def _check_mechanism(privacy, steps):
  name, limit, bands = privacy.mechanism, privacy.max_batch_size, privacy.num_bands
  key = 'adapt.privacy.mechanism'
  _require(name in MECHANISMS, key, name, f'one of {", ".join(MECHANISMS)}')
  key = 'adapt.privacy.max_batch_size'
  if name == 'truncated_poisson':
    holds = _is_whole(limit) and limit >= privacy.batch_size
    required = f'a whole number from batch_size = {privacy.batch_size} up'
    _require(holds, key, limit, required)
  else:
    _require(limit is None, key, limit, 'None, unless mechanism=truncated_poisson')
  key = 'adapt.privacy.num_bands'
  if name == 'banded':
    holds = _is_whole(bands) and 1 <= bands <= steps
    _require(holds, key, bands, f'a whole number from 1 to adapt.steps = {steps}')
  else:
    _require(bands == 1, key, bands, '1, unless mechanism=banded')


def _is_whole(value):
  return isinstance(value, int) and not isinstance(value, bool)
