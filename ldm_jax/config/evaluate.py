"""The section `evaluate`: default values and rules."""

from typing import Any

from ldm_jax.config.parsing import require, require_choices
from ldm_jax.types import Config

CHOICES = {'evaluate.segmenter.optimizer': ('adam', 'muon')}
FIGURES = (
  *('distances', 'two_sample', 'ms_ssim', 'reconstruction', 'memorisation'),
  *('control', 'causal', 'label_maps', 'within_patient'),
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
    # Segmenters trained on real, on synthetic and on both kinds of scans, for the same
    # number of steps, tested on held-out real patients (docs/train-on-synthetic.md).
    # They have the options of `segmenter` but for its steps.
    'utility': {
      'use': False,
      # Synthetic scans per real one; each number is an arm of its own.
      'times': (1.0,),
      'steps': 200,
      # Trainings of each arm.
      'seeds': 2,
      # Continuous attributes, whose error of a regression on what each segmenter has
      # learned to see is measured, too.
      'attributes': (),
    },
    # Distances and utility by group of patients, so that a group which the model
    # neglects is seen.
    'groups': {
      # Attributes that form groups; those that the schema does not have are skipped.
      'by': (),
      # Of equal width, over the range of a number.
      'bands': 4,
      # Groups of fewer held-out patients are joined, never shown.
      'least': 10,
    },
    # Patients with several volumes, synthetic (sample.within_patient) and real ones:
    # how alike these are, and
    'within_patient': {
      # Sizes that a patient's volumes have in common, as in `measures`, such as
      # {'name': 'myocardium', 'kind': 'volume', 'classes': (2,)}.
      'same': (),
      # Ejection fractions, such as {'name': 'LVEF', 'classes': (1,), 'by': 'ESED'}: of
      # a cavity's classes, and an attribute whose first two categories are end-systole
      # and end-diastole.
      'ejection': (),
    },
    # Label values of the data set, in the order of the segmenter's classes.
    'labels': (0, 1),
    # What they mean, such as ('background', 'heart'), for tables and files; () where
    # nobody has said so.
    'label_names': (),
    # What is measured on a volume and which requested attribute it answers.
    'measures': (),
    # Figures to compute: some of 'distances' (always there), 'two_sample', 'ms_ssim',
    # 'reconstruction', 'memorisation', 'control', 'causal', 'label_maps',
    # 'within_patient'; () for all.
    # The arms of a sweep need few.
    'only': (),
    'num_bootstrap': 200,
  }


def check(config: Config) -> None:
  """Raises ValueError for figures that there are not."""
  value = config.evaluate.only
  require_choices(config, CHOICES)
  require(set(value) <= set(FIGURES), 'evaluate.only', value, f'some of {FIGURES}')
  key, value = 'evaluate.label_names', config.evaluate.label_names
  required = f'() or {len(config.evaluate.labels)} names, one for each of labels'
  require(len(value) in (0, len(config.evaluate.labels)), key, value, required)
  key, value = 'evaluate.utility.times', config.evaluate.utility.times
  holds = len(value) and all(number > 0 for number in value)
  require(holds and len(set(value)) == len(value), key, value, 'different numbers > 0')
  channels = config.evaluate.two_sample.channels
  holds = len(channels) == 2 and all(width > 0 for width in channels)
  require(holds, 'evaluate.two_sample.channels', channels, 'two positive numbers')
