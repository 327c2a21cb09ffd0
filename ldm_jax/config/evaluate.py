"""The section `evaluate`: default values and rules."""

from typing import Any

from ldm_jax.config.parsing import require, require_choices
from ldm_jax.types import Config

CHOICES = {'evaluate.segmenter.optimizer': ('adam', 'muon')}
FIGURES = (
  *('distances', 'two_sample', 'ms_ssim', 'reconstruction', 'memorisation'),
  *('control', 'causal'),
)


def section() -> dict[str, Any]:
  """The keys of `evaluate`: the measuring network, and which figures."""
  return {
    'segmenter': {
      # As of `autoencoder.model`.
      'patch': (1, 2, 2),
      'channels': (24, 32),
      'kernels': ((1, 3, 3), (1, 3, 3)),
      'strides': ((1, 2, 2),),
      'norm_groups': 8,
      'steps': 200,
      'batch_size': 4,
      'optimizer': 'muon',
      'learning_rate': 2e-2,
    },
    # Classifiers that tell real from synthetic volumes; so many, each of so many steps.
    'two_sample': {
      'enabled': True,
      'seeds': 3,
      'steps': 100,
      'batch_size': 16,
      'learning_rate': 3e-3,
      'channels': (16, 32),
    },
    # Label values of the data set, in the order of the segmenter's classes.
    'labels': (0, 1),
    # What is measured on a volume and which requested attribute it answers.
    'measures': (),
    # Figures to compute: some of 'distances' (always there), 'two_sample', 'ms_ssim',
    # 'reconstruction', 'memorisation', 'control', 'causal'; () for all. The arms
    # of a sweep need few.
    'only': (),
    'num_bootstrap': 200,
  }


def check(config: Config) -> None:
  """Raises ValueError for figures that there are not."""
  value = config.evaluate.only
  require_choices(config, CHOICES)
  require(set(value) <= set(FIGURES), 'evaluate.only', value, f'some of {FIGURES}')
  channels = config.evaluate.two_sample.channels
  holds = len(channels) == 2 and all(width > 0 for width in channels)
  require(holds, 'evaluate.two_sample.channels', channels, 'two positive numbers')
