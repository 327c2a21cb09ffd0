"""Arms of `sweep()` that several configs share.

An arm is a dict of overrides; a group of arms is a dict from their names. Arms of one
name but for `seed=` are repeats, and the sweep's table gives their mean and interval.

Tags: [Yeganeh25] latent drifting, arXiv 2412.20651.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ldm_jax.config import presets

# Overrides of one run, such as {'adapt.steps': 40}.
Arm = dict[str, Any]

# The ordinary way, whatever the config's own is.
ALL_PARAMETERS = {'adapt.method': 'full', 'adapt.optimizer': 'adam'}
# Without noise more parameters and more steps pay. Rates of clipped gradients, which
# are divided by their norm, say nothing about plain ones.
NO_PRIVACY: Arm = {
  **ALL_PARAMETERS,
  'adapt.privacy': None,
  'adapt.steps': 100,
  'adapt.learning_rate': 5e-4,
}

EPSILONS, SEEDS = (1.0, 3.0, 10.0), (0, 1, 2)
# What a repeat changes: the random draws of training and sampling. The noise that
# protects patients is never drawn from a seed, so it differs in any case.
SEED_KEYS = ('adapt.seed', 'sample.seed')
# Method -> (steps, learning rate) of Table 1 of [Yeganeh25]. Their product, the
# farthest that Adam moves a number, is the one of the paper's methods: 400 x 5e-6 of
# DreamBooth, 250 x 1e-5 of Custom Diffusion, 3000 x 5e-4 of Textual Inversion; of basic
# fine-tuning, whose steps are not told, that of DreamBooth.
FITS = {
  'full': (40, 5e-5),
  'dreambooth': (40, 5e-5),
  'custom_diffusion': (40, 6e-5),
  'textual_inversion': (40, 4e-2),
}
# Six times as far: what is left of a drift's effect after longer fine-tuning?
LONGER = {'full': (60, 2e-4)}
# For arms compared by their samples: skips every figure the table does not show.
COMPARED_BY_SAMPLES = {
  'evaluate.only': ('distances', 'two_sample', 'control'),
  'evaluate.num_bootstrap': 0,
  'counterfactual.num': 0,
  'sample.sweep': (),
}
ONLY_DISTANCES = {
  **COMPARED_BY_SAMPLES,
  'evaluate.only': ('distances', 'two_sample'),
}


def recipe() -> dict[str, Arm]:
  """What a short public training gains by each choice of the defaults (docs/recipe.md).

  Each arm takes one choice back, or one more, at the same number of steps and
  examples. Samples of the public model are compared with held-out patients of the
  public site, so that the figure speaks of learning, not of the difference between
  sites.
  """
  changes: dict[str, Arm] = {
    'defaults': {},
    'adam': {
      'autoencoder.optimizer': 'adam',
      'autoencoder.learning_rate': 6e-3,
      'diffusion.optimizer': 'adam',
      'diffusion.learning_rate': 2e-3,
    },
    'no blocks of voxels': {
      'autoencoder.model.patch': (),
      'autoencoder.model.channels': (16, 32, 48),
      'autoencoder.model.kernels': ((1, 3, 3),) * 3,
      'autoencoder.model.strides': ((1, 2, 2),) * 2,
      'autoencoder.model.upsampling': 'nearest',
    },
    'wavelet': {
      'autoencoder.model.kind': 'wavelet',
      'data.labels': '',
      'autoencoder.model.strides': ((1, 2, 2),) * 2,
      'autoencoder.model.latent_channels': 16,
      'autoencoder.steps': 0,
    },
    'without label maps': {'data.labels': ''},
    'latents that turn': {'autoencoder.equivariance.share': 0.5},
    'small KL divergence': {'autoencoder.kl_weight': 1e-4},
    'each channel its own scale': {'encode.std': 'channel'},
    'slices alone': {'diffusion.model.kernels': ((1, 3, 3),) * 2},
    'linear schedule, not to noise': {
      'diffusion.schedule.name': 'linear',
      'diffusion.schedule.num_timesteps': 150,
      'diffusion.schedule.beta_end': 7e-2,
      'diffusion.schedule.zero_terminal_snr': False,
      'sample.spacing': 'linspace',
    },
    'embedding added before the norm': {'diffusion.model.modulates': False},
    'attributes not as channels': {'diffusion.conditioner.by': ('embedding',)},
    'attributes by attention, too': {
      'diffusion.conditioner.by': ('attention', 'embedding', 'channels')
    },
    'three frequencies': {'diffusion.conditioner.num_frequencies': 3},
    'smooth samples': {'sample.residual_noise': False},
  }
  return {
    name: {
      'data.private.layout': '',
      'data.test.layout': '',
      'sample.model': 'diffusion',
      'sample.requests': 'population',
      'counterfactual.num': 0,
      'sample.sweep': (),
      **overrides,
    }
    for name, overrides in changes.items()
  }


def pretraining() -> list[Arm]:
  """Does public pre-training pay, and what does privacy cost?

  The arm from scratch has the larger learning rate that an untrained network needs, the
  arm without privacy may take more steps: each at its best, the budget equal.
  """
  return [
    {'adapt.init': 'diffusion'},
    {**ALL_PARAMETERS, 'adapt.init': 'scratch', 'adapt.learning_rate': 1e-3},
    NO_PRIVACY,
  ]


def lower_noise(
  lora_learning_rate: float,
  learning_rate: float | None = None,
  attention_learning_rate: float | None = None,
  num_draws: int = 8,
  num_bands: int | None = None,
  steps: int | None = None,
  epsilons: Sequence[float] = EPSILONS,
  seeds: Sequence[int] = SEEDS,
) -> dict[str, Arm]:
  """What each technique of private training gains, at equal budgets.

  'pre-trained' samples from the public model, the starting point of all arms (the
  epsilon beside it is that of its fine-tuning, which is not sampled from). 'plain',
  '+multiplicity' and '+ema' add one technique after the other; every other arm changes
  one thing of '+ema' at the same cost. Only the stages from `adapt` on differ. All arms
  keep two averages of the parameters, so '+ema' and '+multiplicity' share one
  fine-tuning and sample from different averages.

  Args:
    lora_learning_rate: of the arms with adapters, whose product starts at zero and
      needs larger steps than weights that are already good.
    learning_rate: of the other arms; None is the config's.
    attention_learning_rate: of the arms that train attention alone; None is
      `learning_rate`.
    num_draws: of (t, noise) a volume, from '+multiplicity' on.
    num_bands: of the arm with correlated noise, whose groups must each hold a batch;
      None leaves this arm out.
    steps: of every arm; None is the config's.
    epsilons: one arm each.
    seeds: repeats of each arm.
  """
  plain = {
    **ALL_PARAMETERS,
    'adapt.privacy.clip_norm': 1.0,
    'adapt.ema_decay': (0.0, 0.9),
    'sample.ema_decay': 0.0,
    'adapt.privacy.noise_multiplicity': 1,
  }
  plain |= _given({'adapt.learning_rate': learning_rate, 'adapt.steps': steps})
  multiplicity = {**plain, 'adapt.privacy.noise_multiplicity': num_draws}
  ema = {**multiplicity, 'sample.ema_decay': 0.9}
  means = {
    'plain': plain,
    'plain+multiplicity': multiplicity,
    'plain+multiplicity+ema': ema,
  }
  changes: dict[str, Arm] = {
    'augmentation': {  # as many passes
      'adapt.augment.multiplicity': 4,
      'adapt.privacy.noise_multiplicity': max(1, num_draws // 4),
    },
    'times': {'adapt.times.density': 'private'},
    'attention': {
      'adapt.method': 'attention',
      **_given({'adapt.learning_rate': attention_learning_rate}),
    },
    'lora': {'adapt.method': 'lora', 'adapt.learning_rate': lora_learning_rate},
    'bias': presets.BIASES,
    'normalised': {'adapt.privacy.clipping': 'normalised'},
  }
  if num_bands is not None:
    changes['banded'] = {
      'adapt.privacy.mechanism': 'banded',
      'adapt.privacy.num_bands': num_bands,
    }
  for name, change in changes.items():
    means[f'plain+multiplicity+ema+{name}'] = {**ema, **change}
  arms = {}
  # Seeds outermost: a sweep that is stopped has whole repeats.
  for seed, (name, overrides) in itertools.product(seeds, means.items()):
    for epsilon in epsilons:
      arm = {
        **overrides,
        **COMPARED_BY_SAMPLES,
        'adapt.privacy.epsilon': epsilon,
        'adapt.privacy.seed': None,
        **dict.fromkeys(SEED_KEYS, seed),
      }
      if name == 'plain' and epsilon == epsilons[0]:
        arms[f'pre-trained,seed={seed}'] = {**arm, 'sample.model': 'diffusion'}
      arms[f'{name},epsilon={epsilon:g},seed={seed}'] = arm
  return arms


def utility(
  epsilons: Sequence[float] = (1.0, 3.0, 10.0),
  times: Sequence[float] = (1.0, 3.0, 10.0),
  attributes: Sequence[str] = (),
  seeds: Sequence[int] = (0, 1),
) -> dict[str, Arm]:
  """Of what use are samples for training, by epsilon and by their number?

  'public' samples from the pre-trained model, which has seen no private patient, and
  'no privacy' is epsilon infinite, fine-tuned as is best without noise: what privacy
  costs lies between the two. Whether label maps are drawn with the scans
  (data.labels='joint') is for the config or the flags of the sweep to say, so that all
  arms share one autoencoder.

  Args:
    epsilons: one arm each.
    times: synthetic scans per real one.
    attributes: whose error of a regression is measured, too.
    seeds: repeats of each arm.
  """
  kinds: dict[str, Arm] = {
    'public': {'sample.model': 'diffusion', 'adapt.privacy.epsilon': epsilons[0]},
    **{
      f'epsilon={epsilon:g}': {'adapt.privacy.epsilon': epsilon} for epsilon in epsilons
    },
    'no privacy': NO_PRIVACY,
  }
  return {
    f'{name},seed={seed}': {
      **overrides,
      **({} if name == 'no privacy' else {'adapt.privacy.seed': None}),
      'evaluate.only': ('distances', 'label_maps'),
      'evaluate.utility.use': True,
      'evaluate.utility.times': tuple(times),
      'evaluate.utility.attributes': tuple(attributes),
      'counterfactual.num': 0,
      'sample.sweep': (),
      **dict.fromkeys(SEED_KEYS, seed),
    }
    for seed in seeds
    for name, overrides in kinds.items()
  }


def drift(
  fits: Mapping[str, tuple[int, float]],
  search: str = 'closed_form',
  seeds: Sequence[int] = SEEDS,
) -> dict[str, Arm]:
  """Table 1 of [Yeganeh25]: does each way of fine-tuning gain by drift?

  An arm and its '+drift' differ in the drift alone: same steps, rate and seeds. Delta
  is found once a data set, before any training, and is the same for all methods. The
  method 'none' is the pre-trained model, which drifts in sampling alone. Without
  privacy, as in the paper.

  Args:
    fits: method -> (steps, learning rate), chosen without drift.
    search: of `adapt.drift`.
    seeds: repeats of each arm.
  """
  drifted = {'adapt.drift.search': search}
  arms: dict[str, Arm] = {
    'none': {'adapt.steps': 0},
    'none+drift': {'adapt.steps': 0, **drifted, 'adapt.drift.training': False},
  }
  for method, (steps, rate) in fits.items():
    arms[method] = {
      'adapt.method': method,
      'adapt.optimizer': 'adam',
      'adapt.steps': steps,
      'adapt.learning_rate': rate,
    }
    arms[f'{method}+drift'] = {**arms[method], **drifted}
  return {
    f'{name},seed={seed}': {
      'adapt.privacy': None,
      # Of which custom_diffusion trains the keys and values.
      'diffusion.conditioner.by': ('attention', 'embedding', 'channels'),
      **overrides,
      **ONLY_DISTANCES,
      **dict.fromkeys(SEED_KEYS, seed),
    }
    for name, overrides in arms.items()
    for seed in seeds
  }


def private_drift(
  epsilons: Sequence[float] = (1.0, 10.0), seeds: Sequence[int] = SEEDS
) -> dict[str, Arm]:
  """Does drift pay for itself under privacy? One total epsilon with and without.

  The private search is one release, training has what remains of the same total.
  """
  searches: dict[str, Arm] = {
    'dp': {},
    'dp+private_mean': {'adapt.drift.search': 'private_mean'},
    'dp+private_loss': {'adapt.drift.search': 'private_loss'},
  }
  return {
    f'{name},epsilon={epsilon:g},seed={seed}': {
      'adapt.privacy.epsilon': epsilon,
      'adapt.privacy.seed': None,
      **overrides,
      **ONLY_DISTANCES,
      **dict.fromkeys(SEED_KEYS, seed),
    }
    for name, overrides in searches.items()
    for epsilon in epsilons
    for seed in seeds
  }


def _given(overrides):
  """The overrides without those that the caller leaves to the config."""
  return {key: value for key, value in overrides.items() if value is not None}


def private_pretraining(
  attributes: Sequence[str],
  share: float = 0.1,
  epsilons: Sequence[float] = (1.0, 10.0),
  seeds: Sequence[int] = SEEDS,
) -> dict[str, Arm]:
  """Does it pay to weight public volumes by a private histogram? One total epsilon.

  Args:
    attributes: whose combination is a patient's class.
    share: epsilon of the histogram over the total.
    epsilons: totals.
    seeds: of the repeats.
  """
  section = 'adapt.privacy.releases.pretraining'
  arms: dict[str, Arm] = {}
  for total in epsilons:
    weighted = {
      'diffusion.weights': 'private_histogram',
      f'{section}.epsilon': share * total,
      f'{section}.attributes': tuple(attributes),
    }
    for name, overrides in (('alike', {}), ('alike+histogram', weighted)):
      for seed in seeds:
        arms[f'{name},epsilon={total:g},seed={seed}'] = {
          'adapt.privacy.epsilon': total,
          'adapt.privacy.seed': None,
          **overrides,
          **ONLY_DISTANCES,
          **dict.fromkeys(SEED_KEYS, seed),
        }
  return arms
