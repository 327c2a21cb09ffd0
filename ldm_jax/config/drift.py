"""The section `adapt.drift`: default values and rules."""

import math
from typing import Any

from ldm_jax.config.parsing import require, require_choices
from ldm_jax.types import Config

CHOICES = {
  'adapt.drift.variant': ('prior', 'posterior_constant', 'init_only'),
  'adapt.drift.target': ('shifted', 'raw'),
  'adapt.drift.search': (
    *('', 'grid', 'closed_form', 'loss'),
    *('private_mean', 'private_loss'),
  ),
}


def section() -> dict[str, Any]:
  """The keys of `adapt.drift`: see diffusion/drift.py and docs/drift.md."""
  return {
    # The shift of the noise (delta): a number, or one a channel. 0 is no drift; 0.1
    # is what Yeganeh 2025 takes most often.
    'value': 0.0,
    # How the paper is read: 'prior', 'posterior_constant', 'init_only'.
    'variant': 'prior',
    # What the network learns to predict: 'shifted' noise or the 'raw' noise before.
    'target': 'shifted',
    # Offset noise, the baseline of drifting: each training example is shifted by a
    # random amount of this deviation per channel, sampling by none.
    'random_std': 0.0,
    # Where it drifts: both, or training alone, or sampling alone.
    'training': True,
    'sampling': True,
    # How `adapt` finds the value by itself; '' takes `value`. 'grid', 'closed_form'
    # and 'loss' look at the target as it is; 'private_mean' and 'private_loss' are
    # releases in the ledger and all that adapt.privacy allows.
    'search': '',
    # What 'grid', 'loss' and 'private_loss' try: the values of Yeganeh 2025.
    'grid': (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2),
    # Latents that the pre-trained model generates, for each value of the grid.
    'num_samples': 64,
    # Steps of plain fine-tuning before 'grid' samples, where the drift is trained with:
    # enough to see where training starts to go. 0 looks at the start itself.
    'trial_steps': 16,
    # Draws of (t, noise) a volume for the denoising loss, the same for every value.
    'num_draws': 16,
    # Epsilon of a private search alone, at adapt.privacy.delta; training has what
    # remains. A drift is few numbers and needs little.
    'epsilon': 0.5,
    # L2 norm that a patient's part is clipped to, in units of what nine of ten public
    # patients stay below. None: 2 for 'private_mean', since private patients lie
    # further from the public mean, 1 for 'private_loss'.
    'clip_norm': None,
  }


def check(config: Config) -> None:
  """Raises ValueError naming the key, its value and what is required."""
  require_choices(config, CHOICES)
  adapt, section = config.adapt, config.adapt.drift
  value = section.value if isinstance(section.value, tuple | list) else [section.value]
  holds = len(value) and all(_is_finite(number) for number in value)
  require(holds, 'adapt.drift.value', section.value, 'finite: a number, or a tuple')
  key, value = 'adapt.drift.grid', section.grid
  holds = len(set(value)) == len(value) > 1 and all(map(_is_finite, value))
  require(holds and 0 in value, key, value, 'different numbers with 0 among them')
  for name in ('num_samples', 'num_draws'):
    key, value = f'adapt.drift.{name}', section[name]
    require(value > 0 and math.isfinite(value), key, value, 'a positive number')
  key, value = 'adapt.drift.clip_norm', section.clip_norm
  holds = value is None or (_is_finite(value) and value > 0)
  require(holds, key, value, 'None or a positive number')
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
