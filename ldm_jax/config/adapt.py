"""The section `adapt`: its default values, and what it must satisfy."""

from ldm_jax.config import drift, pairs, privacy
from ldm_jax.config.parsing import require as _require


def section():
  """The keys of `adapt`: method, training, privacy."""
  return {
    # Which parameters move, which are new, which loss is added: docs/adaptation.md.
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
    'times': times(''),
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


def times(density):
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


def check_transformations(section, prefix):
  for key in ('shift', 'rotation_deg'):
    value = section[key]
    holds = len(value) == 3 and min(value) >= 0
    _require(
      holds, f'{prefix}.{key}', value, 'three numbers from 0 up: axes d, h and w'
    )
  value = section.gamma
  _require(value >= 0, f'{prefix}.gamma', value, 'a number from 0 up')


def check(config):
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
  check_transformations(section.augment, 'adapt.augment')
  key, value = 'adapt.augment.multiplicity', section.augment.multiplicity
  _require(value >= 1, key, value, 'a whole number from 1 up')
  moves = [*section.augment.shift, *section.augment.rotation_deg, section.augment.gamma]
  required = '1, or a transformation (shift, rotation_deg, gamma) above 0 beside it'
  _require(value == 1 or any(moves), key, value, required)
