"""Predicts the later visits of patients from their earlier ones, for the evidence.

Whatever the editor: it is given the earlier scan and the attributes of both visits. The
later scan is only compared with the result. Of each patient one pair, the longest.
"""

import numpy as np

from ldm_jax import atomic
from ldm_jax.data.store import visit_pairs
from ldm_jax.synthesis import edit, write_counterfactuals
from ldm_jax.synthesis.editors import registry

# Kept so that evaluation need not read the store again.
FORECASTS = 'forecasts.npz'


def write_forecasts(config, work, trained, split, key=None):
  """Predicts the later visit of at most `counterfactual.forecasts` patients.

  Args:
    config, work: of the run.
    trained: synthesis.system.Trained.
    split: prepared cohort, or None.
    key: of the noise that some editors draw.

  Returns:
    Number of patients; without any visits nothing is written.
  """
  pairs = split and longest(split, config.adapt.pairs)
  chosen = np.arange(len(pairs.years) if pairs else 0)[
    : config.counterfactual.forecasts
  ]
  if not len(chosen):
    return 0
  earlier, later = pairs.earlier[chosen], pairs.later[chosen]
  x, section = split.volumes(earlier), config.counterfactual
  setting = write_counterfactuals.setting_of(config, trained, key)
  result = edit.in_batches(
    config.sample.batch_size,
    registry.make(section.editor, setting, **section[section.editor]),
    trained.encode,
    trained.decode,
    trained.params,
    x,
    split.attributes[earlier],
    split.attributes[later],
    keep_detail=section.keep_detail,
  )
  atomic.write_arrays(
    work.path('store', FORECASTS),
    earlier=x,
    predicted=result.volume,
    later=split.volumes(later),
    years=pairs.years[chosen],
    patients=[split.patients[index] for index in earlier],
    cohort=split.name,
  )
  return len(chosen)


def longest(split, section):
  """Each patient's pair of the longest gap within the limits of `adapt.pairs`."""
  found = visit_pairs.entry_pairs(split, section.min_years, section.max_years)
  best = {}
  for number, index in enumerate(found.earlier):
    patient = split.patients[index]
    if patient not in best or found.years[number] > found.years[best[patient]]:
      best[patient] = number
  return visit_pairs.EntryPairs(*(column[list(best.values())] for column in found))
