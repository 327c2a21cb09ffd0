"""The sections `adapt.privacy`, `ledger` and `audit`: default values and rules."""

import importlib.util
import math
from typing import Any

from ldm_jax.config.parsing import require
from ldm_jax.types import Config

# Who is drawn and how noise is added in private training: privacy.mechanisms.
GRADIENTS = ('auto', 'vmap', 'ghost')
CLIPPING = ('constant', 'normalised', 'per_layer', 'adaptive')
GENERATORS = ('threefry', 'chacha20')
MECHANISMS = ('poisson', 'truncated_poisson', 'banded', 'full_batch')


def section() -> dict[str, Any]:
  """The keys of `adapt.privacy`: budget, mechanism, clipping, other releases."""
  return {
    # Of all releases on these patients together, or of this run alone where
    # ledger.total_epsilon bounds the total.
    'epsilon': 10.0,
    'delta': 1e-5,
    # 'poisson'; 'truncated_poisson' keeps at most max_batch_size patients of a
    # draw; 'banded' correlates the noise of num_bands steps; 'full_batch' takes
    # every patient in every step, whatever batch_size. See docs/privacy.md.
    'mechanism': 'poisson',
    'max_batch_size': None,
    'num_bands': 1,
    'clip_norm': 1.0,
    # 'constant'; 'normalised' gives every patient's gradient the norm clip_norm;
    # 'per_layer' clips each array by itself; 'adaptive' lets clip_norm follow this
    # quantile of the norms. See privacy/clipping.py.
    'clipping': 'constant',
    'quantile': 0.5,
    # Divides the private mean gradient by clip_norm, after the noise, so that the
    # learning rate need not follow it (De 2022).
    'normalize': True,
    # Expected patients a step; each is drawn with probability
    # batch_size / num_patients.
    'batch_size': 32,
    # Draws of (t, noise) a patient, averaged before clipping (DPDM 2023).
    'noise_multiplicity': 1,
    # Patients a compiled call; any drawn batch is a number of these.
    'chunk_size': 16,
    # Of a chunk, patients differentiated at once; 0 for all, which a CPU needs.
    'microbatch': 0,
    # How: 'ghost' forms no gradient per patient of a coarse layer, 'vmap' forms all,
    # 'auto' takes what is faster. The numbers are the same.
    'gradients': 'auto',
    'log_internal': False,
    # Of a private choice among arms, which launch/sweep.py --best_of makes and sets:
    # the mean of the secret number of its runs, and its name, which they share.
    'best_of': None,
    'choice': '',
    # What else is published of the private cohort, within the same epsilon.
    'releases': {
      # Histograms of the attributes, for sample.requests='private_prior'.
      'attributes': {
        # Epsilon of this release alone, at adapt.privacy.delta; training has what
        # remains. None releases nothing. Histograms need little beside images.
        'epsilon': None,
        # Bins of a continuous attribute: more bins, more noise in each share.
        'num_bins': 8,
        # ((parent, child), ...): the child is drawn given its parent. Without
        # pairs the attributes are drawn independently.
        'pairs': (),
      },
      # Histogram of classes, for diffusion.weights='private_histogram'.
      'pretraining': {
        # As of attributes: of this release alone. None with diffusion.weights=''.
        'epsilon': None,
        # Whose combination is a patient's class: few, such as ('SEX',).
        'attributes': (),
        # Bins of a continuous attribute.
        'num_bins': 4,
        # The most that a class is drawn more often, or less, than it is there.
        'most': 10.0,
      },
    },
    # None: noise key from the operating system. A number makes the noise
    # predictable: for demonstrations only, and the statement says so.
    'seed': None,
    # Of what this machine's processor draws: who takes part in a step, and the noise of
    # means and histograms. 'chacha20' has a secret of 256 bits and needs the package
    # cryptography (extra chacha20). Training noise is drawn by threefry either way.
    'generator': 'threefry',
  }


def ledger() -> dict[str, Any]:
  """The keys of `ledger`: what the private patients have spent."""
  return {
    # A file that several work folders share, when they use the same patients; ''
    # is store/ledger-private.jsonl of the work folder.
    'path': '',
    # The most epsilon, at adapt.privacy.delta, of all releases in the ledger; None
    # makes adapt.privacy.epsilon that total.
    'total_epsilon': None,
    # True counts on in a ledger of other patients: needed where two cohorts share
    # some, and never less than the truth.
    'any_cohort': False,
    # Folder of the registry that adds up the releases of all work folders which share a
    # patient; '' is $XDG_STATE_HOME/ldm_jax/privacy (~/.local/state/...). 'none' counts
    # this work folder alone, and the statement then claims nothing. Phantoms, whose
    # patients are made up, are not registered.
    'registry': '',
    # Name of the data set, where two have patients of equal identifiers by chance.
    'dataset': '',
  }


def audit() -> dict[str, Any]:
  """The keys of `audit`: attacks on the private step, tried on public patients."""
  return {
    # Half of them take part; each costs a patient's gradient at every second step.
    'num_canaries': 64,
    # Steps that draw everybody; there are twice as many in all.
    'participations': 4,
    # Chance that all its bounds are true.
    'confidence': 0.95,
  }


def check(config: Config) -> None:
  """Raises ValueError for invalid values of `adapt.privacy`, `ledger` and `audit`.

  Without privacy (`adapt.privacy=None`) the rules of that section do not apply.
  """
  privacy, total = config.adapt.privacy, config.ledger.total_epsilon
  holds = total is None or 0 < total < math.inf
  require(holds, 'ledger.total_epsilon', total, 'a positive number, or None')
  if privacy is not None:
    check_training(privacy)
    check_releases(privacy)
    check_mechanism(privacy, config.adapt.steps)
    check_choice(config)
    required = f'at least adapt.privacy.epsilon = {privacy.epsilon}'
    holds = total is None or privacy.epsilon <= total
    require(holds, 'ledger.total_epsilon', total, required)
  check_private_prior(config)
  check_pretraining(config)
  value = config.audit.num_canaries
  require(value >= 8, 'audit.num_canaries', value, 'at least 8')
  value = config.audit.confidence
  require(0 < value < 1, 'audit.confidence', value, 'a number between 0 and 1')


def check_training(privacy: Config) -> None:
  """Raises ValueError for an invalid budget, size or rule."""
  prefix = 'adapt.privacy'
  epsilon, delta = privacy.epsilon, privacy.delta
  require(
    epsilon > 0 and math.isfinite(epsilon),
    f'{prefix}.epsilon',
    epsilon,
    'a positive finite number; for training without privacy set adapt.privacy=None',
  )
  require(0 < delta < 1, f'{prefix}.delta', delta, 'a number between 0 and 1')
  for key in ('clip_norm', 'batch_size', 'noise_multiplicity', 'chunk_size'):
    require(privacy[key] > 0, f'{prefix}.{key}', privacy[key], 'a positive number')
  key, value = 'microbatch', privacy.microbatch
  require(value >= 0, f'{prefix}.{key}', value, '0 (all of a chunk) or more')
  divides = not value or privacy.chunk_size % value == 0
  wanted = f'a divisor of adapt.privacy.chunk_size={privacy.chunk_size}, or 0'
  require(divides, f'{prefix}.{key}', value, wanted)
  key, value = 'clipping', privacy.clipping
  require(value in CLIPPING, f'{prefix}.{key}', value, f'one of {CLIPPING}')
  key, value = 'quantile', privacy.quantile
  require(0 < value < 1, f'{prefix}.{key}', value, 'a share between 0 and 1')
  key, value = 'gradients', privacy.gradients
  require(value in GRADIENTS, f'{prefix}.{key}', value, f'one of {GRADIENTS}')
  key, value = 'generator', privacy.generator
  require(value in GENERATORS, f'{prefix}.{key}', value, f'one of {GENERATORS}')
  holds = value != 'chacha20' or importlib.util.find_spec('cryptography') is not None
  required = (
    "'threefry' where the package cryptography is not installed; to use chacha20, "
    "install it: pip install 'ldm-jax[chacha20]'"
  )
  require(holds, f'{prefix}.{key}', value, required)


def check_releases(privacy: Config) -> None:
  """Raises ValueError for invalid releases beside the model."""
  prefix, section = 'adapt.privacy.releases.attributes', privacy.releases.attributes
  value = section.epsilon
  holds = value is None or (
    isinstance(value, int | float)
    and not isinstance(value, bool)
    and 0 < value < privacy.epsilon
  )
  required = f'None, or above 0 and below adapt.privacy.epsilon = {privacy.epsilon:g}'
  require(holds, f'{prefix}.epsilon', value, required)
  value = section.num_bins
  require(value > 0, f'{prefix}.num_bins', value, 'a positive whole number')
  prefix, section = 'adapt.privacy.releases.pretraining', privacy.releases.pretraining
  others, value = privacy.releases.attributes.epsilon or 0, section.epsilon
  holds = value is None or (
    isinstance(value, int | float)
    and not isinstance(value, bool)
    and 0 < value < privacy.epsilon - others
  )
  required = (
    f'None, or above 0 and, with releases.attributes, below adapt.privacy.epsilon = '
    f'{privacy.epsilon:g}'
  )
  require(holds, f'{prefix}.epsilon', value, required)
  value = section.num_bins
  require(value > 0, f'{prefix}.num_bins', value, 'a positive whole number')
  value = section.most
  require(1 <= value < math.inf, f'{prefix}.most', value, 'a number from 1 up')


def check_choice(config: Config) -> None:
  """Raises ValueError for a private choice of runs that it does not cover."""
  privacy = config.adapt.privacy
  key, mean = 'adapt.privacy.best_of', privacy.best_of
  holds = (mean is None) == (privacy.choice == '')
  required = 'None without a name in adapt.privacy.choice, and a number with one'
  require(holds, key, mean, f'{required}; launch/sweep.py --best_of sets both')
  if mean is None:
    return
  holds = isinstance(mean, int | float) and 1 <= mean < math.inf
  require(holds, key, mean, 'a mean number of runs of at least 1')
  holds = privacy.choice.isalnum()
  require(holds, 'adapt.privacy.choice', privacy.choice, 'letters and digits')
  # The theorem is used for one Poisson-sampled Gaussian release a run.
  holds = privacy.mechanism in ('poisson', 'full_batch')
  value, required = privacy.mechanism, "'poisson' or 'full_batch' in a private choice"
  require(holds, 'adapt.privacy.mechanism', value, required)
  for part in privacy.releases:
    value = privacy.releases[part].epsilon
    required = 'None in a private choice, whose runs release nothing beside the model'
    require(value is None, f'adapt.privacy.releases.{part}.epsilon', value, required)
  value, required = config.adapt.drift.search, "'' in a private choice"
  require(value == '', 'adapt.drift.search', value, required)
  value, required = config.run.wandb, "'' in a private choice: curves tell of every run"
  require(value == '', 'run.wandb', value, required)
  value, required = privacy.log_internal, 'False in a private choice'
  require(not value, 'adapt.privacy.log_internal', value, required)


def check_private_prior(config: Config) -> None:
  """Raises ValueError for requests from a prior that no run releases."""
  if config.sample.requests != 'private_prior':
    return
  privacy = config.adapt.privacy
  released = privacy is not None and privacy.releases.attributes.epsilon is not None
  holds = released and config.data.private.layout
  required = (
    'another source where no prior is released (adapt.privacy.releases.attributes.'
    'epsilon is None, or there is no private cohort or no privacy)'
  )
  require(holds, 'sample.requests', 'private_prior', required)


def check_pretraining(config: Config) -> None:
  """Raises ValueError for weights of pre-training without their release, or reverse."""
  privacy, key = config.adapt.privacy, 'diffusion.weights'
  value = config.diffusion.weights
  section = None if privacy is None else privacy.releases.pretraining
  if not value:
    holds = section is None or section.epsilon is None
    required = (
      "'private_histogram' with adapt.privacy.releases.pretraining.epsilon, which is "
      'set; or None there'
    )
    require(holds, key, value, required)
    return
  holds = (
    section is not None
    and section.epsilon is not None
    and bool(section.attributes)
    and bool(config.data.private.layout)
  )
  required = (
    "'' without a private cohort, adapt.privacy.releases.pretraining.epsilon and "
    '.attributes'
  )
  require(holds, key, value, required)
  value, required = config.sample.model, "'adapt' with diffusion.weights"
  # Samples of the pre-trained model are said to be public.
  require(value == 'adapt', 'sample.model', value, required)


def check_mechanism(privacy: Config, steps: int) -> None:
  """Raises ValueError where the mechanism lacks its options or has another's."""
  name, limit, bands = privacy.mechanism, privacy.max_batch_size, privacy.num_bands
  key = 'adapt.privacy.mechanism'
  require(name in MECHANISMS, key, name, f'one of {", ".join(MECHANISMS)}')
  key = 'adapt.privacy.max_batch_size'
  if name == 'truncated_poisson':
    holds = _is_whole(limit) and limit >= privacy.batch_size
    required = f'a whole number from batch_size = {privacy.batch_size} up'
    require(holds, key, limit, required)
  else:
    require(limit is None, key, limit, 'None, unless mechanism=truncated_poisson')
  key = 'adapt.privacy.num_bands'
  if name == 'banded':
    holds = _is_whole(bands) and 1 <= bands <= steps
    require(holds, key, bands, f'a whole number from 1 to adapt.steps = {steps}')
  else:
    require(bands == 1, key, bands, '1, unless mechanism=banded')


def _is_whole(value):
  return isinstance(value, int) and not isinstance(value, bool)
