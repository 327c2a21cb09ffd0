"""What a config must satisfy before any data are read. Knows no room but the config."""

import math

from ldm_jax.config import flatten

METHODS = ('full', 'attention')
# How attributes reach the denoiser, any of them together.
WAYS = ('attention', 'embedding', 'channels')
CHOICES = {
  'autoencoder.codebook.learned_by': ('averages', 'gradient'),
  'autoencoder.perceptual.network': ('public', 'vgg16', 'radimagenet', 'medicalnet'),
  'diffusion.schedule.name': ('linear', 'scaled_linear', 'sigmoid', 'cosine', 'flow'),
  'diffusion.prediction': ('epsilon', 'v', 'sample', 'flow'),
  'diffusion.model.kind': ('unet', 'dit', 'daum24'),
  'diffusion.model.attention': ('volume', 'depth'),
  'diffusion.model.dtype': ('float32', 'bfloat16'),
  'adapt.method': METHODS,
  # From the public pre-training, or from random weights.
  'adapt.init': ('diffusion', 'scratch'),
  'sample.solver': ('ddim', 'ddpm', 'euler', 'heun', 'dpmpp_2m', 'unipc'),
  'sample.spacing': ('linspace', 'leading', 'trailing', 'monai'),
  'sample.model': ('adapt', 'diffusion'),
  'counterfactual.source': ('public', 'private', 'test'),
}


def check(config):
  """Checks what needs no data.

  Raises:
    ValueError: naming the key, what came and what is required.
  """
  for key in ('autoencoder', 'diffusion'):
    value, init = config[key].steps, config[key].init
    required = f'above 0, or 0 with --config.{key}.init'
    _require(value > 0 or (value == 0 and init), f'{key}.steps', value, required)
  for key in (
    'autoencoder.batch_size',
    'autoencoder.perceptual.steps',
    'autoencoder.perceptual.batch_size',
    'autoencoder.adversarial.num_scales',
    'diffusion.batch_size',
    'adapt.steps',
    'adapt.batch_size',
    'sample.num',
    'sample.steps',
    'sample.batch_size',
    'evaluate.segmenter.steps',
    'evaluate.segmenter.batch_size',
    'run.log_every',
    'run.checkpoint_every',
  ):
    value = flatten(config)[key]
    _require(value > 0, key, value, 'a positive whole number')
  value = config.doctor.max_records
  _require(value >= 0, 'doctor.max_records', value, 'a whole number, 0 for all scans')
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
  timesteps = config.diffusion.schedule.num_timesteps
  for key in ('sample.steps', 'counterfactual.steps'):
    value = flatten(config)[key]
    _require(
      value <= timesteps,
      key,
      value,
      f'at most diffusion.schedule.num_timesteps = {timesteps}',
    )
  for key in ('shift', 'rotation_deg'):
    value = config.augment[key]
    holds = len(value) == 3 and min(value) >= 0
    _require(holds, f'augment.{key}', value, 'three numbers from 0 up: axes d, h and w')
  for key in ('copies', 'gamma'):
    value = config.augment[key]
    _require(value >= 0, f'augment.{key}', value, 'a number from 0 up')
  _check_autoencoder(config.autoencoder)
  if config.adapt.privacy is not None:
    _check_privacy(config.adapt.privacy)
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
  names = ('clip_norm', 'batch_size', 'noise_multiplicity', 'chunk_size', 'microbatch')
  for key in names:
    _require(privacy[key] > 0, f'{prefix}.{key}', privacy[key], 'a positive number')


def _require(holds, key, value, required):
  if not holds:
    raise ValueError(
      f'config.{key} is {value!r}, but must be {required}. Set --config.{key}=...'
    )
