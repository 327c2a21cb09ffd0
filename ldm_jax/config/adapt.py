"""The section `adapt`: default values and rules."""

from typing import Any

from ldm_jax.config import data, diffusion, drift, pairs, privacy
from ldm_jax.config.parsing import require, require_choices
from ldm_jax.types import Config

METHODS = (
  *('full', 'bias', 'attention', 'lora'),
  *('textual_inversion', 'dreambooth', 'custom_diffusion'),
)
CHOICES = {
  'adapt.method': METHODS,
  # From the public pre-training, or from random weights.
  'adapt.init': ('diffusion', 'scratch'),
  'adapt.optimizer': ('adam', 'sgd'),
  'adapt.schedule': ('constant', 'cosine'),
  'adapt.prior.source': ('generated', 'public'),
}


def section() -> dict[str, Any]:
  """The keys of `adapt`: method, training, privacy."""
  return {
    # Which parameters are trained or added, and which loss: docs/adaptation.md.
    'method': 'full',
    'lora': {
      # Numbers in an adapter grow with the rank; few carry what a fine-tuning
      # changes (Hu 2021), and few gather little privacy noise.
      'rank': 4,
      # The adapters' product is scaled by alpha / rank.
      'alpha': 4.0,
      # Regular expressions over paths of layers: linear or convolution.
      'targets': (r'/to_[qkv]$', r'/out_proj$'),
    },
    # New tokens of 'textual_inversion', 'dreambooth' and 'custom_diffusion'.
    'tokens': {
      # One word is what the papers give a subject.
      'num': 1,
    },
    # Samples of the pre-trained model whose loss is added, so that it is not forgotten.
    'prior': {
      # None is the method's own: 1 for 'dreambooth' (Ruiz 2023), 0 for all others.
      'weight': None,
      # Distinct class samples: as many as a cohort has patients, about.
      'num': 100,
      # 'generated' by the pre-trained model, or latents of the 'public' cohort.
      'source': 'generated',
      # As in `sample`, by DDIM.
      'steps': 50,
      'guidance': 1.0,
      'batch_size': 16,
    },
    # 'scratch' ignores the public pre-training: the ablation of Daum 2024.
    'init': 'diffusion',
    'drift': drift.section(),
    # '' draws times as pre-training does.
    'times': diffusion.times(''),
    'steps': 100,
    # 'adam', or 'sgd' (plain descent).
    'optimizer': 'adam',
    'learning_rate': 2e-4,
    # 'constant', or 'cosine': a short warm-up, then down to a twentieth. For long runs.
    'schedule': 'constant',
    # One average of the parameters for each decay, at no cost in privacy: the
    # first is what `sample` takes unless sample.ema_decay names another.
    'ema_decay': (0.9,),
    # Patients a step without privacy.
    'batch_size': 16,
    # Of a patient's volumes (or pairs) those that a step sees, drawn anew each time; 0
    # for all. A step's cost grows with them, and they resemble each other.
    'examples_per_patient': 0,
    # Another number repeats this stage alone with other draws, as `seed` would
    # all of them.
    'seed': 0,
    # Transformed copies of each volume of a patient, averaged with the volume
    # before anything is clipped. Only what leaves the attributes true belongs
    # here: no rotation where an attribute is an angle.
    'augment': {
      # Versions of a volume, itself included (De 2022).
      'multiplicity': 1,
      # As in the section `augment`.
      'shift': (0, 1, 1),
      'rotation_deg': (0, 0, 0),
      'gamma': 0.1,
    },
    'pairs': pairs.section(),
    'privacy': privacy.section(),
  }


def check(config: Config) -> None:
  """Raises ValueError for invalid values of `config.adapt`."""
  require_choices(config, CHOICES)
  section = config.adapt
  least = 0 if section.privacy is None else 1
  required = (
    "1 or more; without privacy also 0, which is the model 'diffusion' as it is"
  )
  require(section.steps >= least, 'adapt.steps', section.steps, required)
  key, value = 'adapt.examples_per_patient', section.examples_per_patient
  require(value >= 0, key, value, 'a whole number, 0 for all')
  for key in ('rank', 'alpha'):
    require(section.lora[key] > 0, f'adapt.lora.{key}', section.lora[key], 'above 0')
  key, value = 'adapt.lora.targets', section.lora.targets
  require(len(value), key, value, 'at least one regular expression')
  key, value = 'adapt.ema_decay', section.ema_decay
  holds = len(value) and all(0 <= decay < 1 for decay in value)
  require(holds and len(set(value)) == len(value), key, value, 'decays in [0, 1)')
  key, chosen = 'sample.ema_decay', config.sample.ema_decay
  holds = chosen is None or chosen in value
  require(holds, key, chosen, f'None or one of adapt.ema_decay, {tuple(value)}')
  key, value = 'adapt.prior.weight', section.prior.weight
  require(value is None or value >= 0, key, value, 'a number from 0 up, or None')
  data.check_transformations(section.augment, 'adapt.augment')
  key, value = 'adapt.augment.multiplicity', section.augment.multiplicity
  require(value >= 1, key, value, 'a whole number from 1 up')
  moves = [*section.augment.shift, *section.augment.rotation_deg, section.augment.gamma]
  required = '1, or a transformation (shift, rotation_deg, gamma) above 0 beside it'
  require(value == 1 or any(moves), key, value, required)
