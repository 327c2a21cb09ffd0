"""What a config must satisfy before any data are read: the rules of all sections.

Rules of one section stand in its module; here are those that many sections share.
"""

import math

from ldm_jax.config import (
  adapt,
  autoencoder,
  counterfactual,
  data,
  diffusion,
  drift,
  evaluate,
  export,
  pairs,
  privacy,
  run,
  sample,
)
from ldm_jax.config.parsing import flatten, require, require_local
from ldm_jax.types import Config

POSITIVE = (
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
  'evaluate.two_sample.seeds',
  'evaluate.utility.steps',
  'evaluate.groups.bands',
  'evaluate.groups.least',
  'evaluate.utility.seeds',
  'evaluate.two_sample.steps',
  'evaluate.two_sample.batch_size',
  'run.log_every',
  'run.checkpoint_every',
  'audit.participations',
)
LEARNING_RATES = (
  *('autoencoder', 'diffusion', 'adapt'),
  *('evaluate.segmenter', 'evaluate.two_sample'),
)
# Of solvers, which take at most as many steps as the process has times.
STEPS = ('sample.steps', 'counterfactual.steps', 'adapt.prior.steps')
CHOICES = {
  **data.CHOICES,
  **autoencoder.CHOICES,
  **diffusion.CHOICES,
  **adapt.CHOICES,
  **drift.CHOICES,
  **sample.CHOICES,
  **counterfactual.CHOICES,
  **export.CHOICES,
}


def check(config: Config) -> Config:
  """Checks what needs no data.

  Raises:
    ValueError: naming the key, its value and what is required.
  """
  flat = flatten(config)
  for key, value in flat.items():
    if key != 'name':
      require_local(f'config.{key}', value)
  required = 'a section; for no drift set --config.adapt.drift.value=0'
  require(config.adapt.drift is not None, 'adapt.drift', None, required)
  for key in POSITIVE:
    require(flat[key] > 0, key, flat[key], 'a positive whole number')
  for key in (f'{section}.learning_rate' for section in LEARNING_RATES):
    holds = flat[key] > 0 and math.isfinite(flat[key])
    require(holds, key, flat[key], 'a positive number')
  timesteps = flat['diffusion.schedule.num_timesteps']
  required = f'at most diffusion.schedule.num_timesteps = {timesteps}'
  for key in STEPS:
    require(flat[key] <= timesteps, key, flat[key], required)
  for section in (
    *(run, data, autoencoder, diffusion, sample, counterfactual, evaluate),
    *(drift, adapt, pairs, privacy, export),
  ):
    section.check(config)
  return config
