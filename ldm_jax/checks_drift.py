"""What `adapt.drift` must satisfy before any data are read."""

import math

from ldm_jax.config import require


def check(config):
  """Raises ValueError naming the key, what came and what is required."""
  adapt, section = config.adapt, config.adapt.drift
  value = section.value if isinstance(section.value, tuple | list) else [section.value]
  holds = len(value) and all(_is_finite(number) for number in value)
  require(holds, 'adapt.drift.value', section.value, 'finite: a number, or a tuple')
  key, value = 'adapt.drift.grid', section.grid
  holds = len(set(value)) == len(value) > 1 and all(map(_is_finite, value))
  require(holds and 0 in value, key, value, 'different numbers with 0 among them')
  for name in ('num_samples', 'num_draws', 'clip_norm'):
    key, value = f'adapt.drift.{name}', section[name]
    require(value > 0 and math.isfinite(value), key, value, 'a positive number')
  key, value = 'adapt.drift.trial_steps', section.trial_steps
  require(value >= 0, key, value, 'a whole number from 0 up')
  key, value = 'adapt.init', adapt.init
  required = "'diffusion' with adapt.drift.search: it looks at the pre-trained network"
  require(not section.search or value == 'diffusion', key, value, required)
  private = section.search.startswith('private')
  key, value = 'adapt.drift.search', section.search
  if adapt.privacy is None:
    required = "'grid', 'closed_form' or 'loss': adapt.privacy is None"
    require(not private, key, value, required)
  else:
    required = "'private_mean' or 'private_loss', since adapt.privacy is set"
    require(private or not value, key, value, required)
    key, value = 'adapt.drift.epsilon', section.epsilon
    required = f'above 0 and below adapt.privacy.epsilon = {adapt.privacy.epsilon:g}'
    holds = not private or 0 < value < adapt.privacy.epsilon
    require(holds, key, value, required)


def _is_finite(value):
  return (
    isinstance(value, int | float)
    and not isinstance(value, bool)
    and math.isfinite(value)
  )
