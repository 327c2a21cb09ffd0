"""What a config must satisfy before any data are read. Knows no room but the config."""

import math

from ldm_jax.config import adapt, autoencoder, counterfactual, drift, pairs, privacy
from ldm_jax.config.parsing import flatten, require_local
from ldm_jax.config.parsing import require as _require

METHODS = (
  *('full', 'attention', 'lora'),
  *('textual_inversion', 'dreambooth', 'custom_diffusion'),
)
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
  counterfactual.check(config)
  drift.check(config)
  adapt.check_transformations(config.augment, 'augment')
  value = config.augment.copies
  _require(value >= 0, 'augment.copies', value, 'a number from 0 up')
  value = config.run.workers
  _require(value >= 0, 'run.workers', value, 'a whole number from 0 up')
  autoencoder.check(config.autoencoder)
  total = config.ledger.total_epsilon
  holds = total is None or 0 < total < math.inf
  _require(holds, 'ledger.total_epsilon', total, 'a positive number, or None')
  adapt.check(config)
  pairs.check(config)
  if config.adapt.privacy is not None:
    privacy.check(config.adapt.privacy)
    privacy.check_releases(config.adapt.privacy)
    privacy.check_mechanism(config.adapt.privacy, config.adapt.steps)
    holds = total is None or config.adapt.privacy.epsilon <= total
    required = f'at least adapt.privacy.epsilon = {config.adapt.privacy.epsilon}'
    _require(holds, 'ledger.total_epsilon', total, required)
  privacy.check_private_prior(config)
  value = config.audit.num_canaries
  _require(value >= 8, 'audit.num_canaries', value, 'at least 8')
  value = config.audit.confidence
  _require(0 < value < 1, 'audit.confidence', value, 'a number between 0 and 1')
  return config
