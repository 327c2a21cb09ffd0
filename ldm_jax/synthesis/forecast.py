"""Predicts the later visits of patients from their earlier ones, for the evidence.

Whatever the editor: it is given the earlier scan and the attributes of both visits. The
later scan is only compared with the result. Of each patient one pair, the longest.
"""

import numpy as np

from ldm_jax.data import longitudinal
from ldm_jax.data.batching import chunks
from ldm_jax.synthesis import counterfactual as editing
from ldm_jax.synthesis import editors

# Kept so that evaluation need not read the store again.
FORECASTS = 'forecasts.npz'


def write_forecasts(config, work, trained, split, key=None):
  """Predicts the later visit of at most `counterfactual.forecasts` patients.

  Args:
    config, work: of the run.
    trained: synthesis.trained.Trained.
    split: prepared cohort, or None.
    key: of the noise that some editors draw.

  Returns:
    Number of patients; without any visits nothing is written.
  """
  place = work.path('store', FORECASTS)
  place.unlink(missing_ok=True)
  pairs = split and longest(split, config.adapt.pairs)
  chosen = np.arange(len(pairs.years) if pairs else 0)[
    : config.counterfactual.forecasts
  ]
  if not len(chosen):
    return 0
  earlier, later = pairs.earlier[chosen], pairs.later[chosen]
  edit, found = _editor(config, trained, key), []
  for rows, real in chunks(chosen, config.sample.batch_size):
    predicted = editing.counterfactual(
      edit,
      trained.encode,
      trained.decode,
      trained.params,
      split.volumes(pairs.earlier[rows]),
      split.attributes[pairs.earlier[rows]],
      split.attributes[pairs.later[rows]],
      keep_detail=config.counterfactual.keep_detail,
    )
    found.append(predicted.volume[real])
  np.savez(
    place,
    earlier=split.volumes(earlier),
    predicted=np.concatenate(found),
    later=split.volumes(later),
    years=pairs.years[chosen],
    patients=[split.patients[index] for index in earlier],
    cohort=split.name,
  )
  return len(chosen)


def _editor(config, trained, key):
  section = config.counterfactual
  setting = editors.Setting(
    trained.apply_denoiser,
    trained.schedule,
    section.steps,
    prediction=trained.prediction,
    guidance=section.guidance,
    drift=trained.drift,
    key=key,
    time=trained.time,
    **trained.statistics,
  )
  return editors.make(section.editor, setting, **section[section.editor])


def longest(split, section):
  """Each patient's pair of the longest gap within the limits of `adapt.pairs`."""
  found = longitudinal.entry_pairs(split, section.min_years, section.max_years)
  best = {}
  for number, index in enumerate(found.earlier):
    patient = split.patients[index]
    if patient not in best or found.years[number] > found.years[best[patient]]:
      best[patient] = number
  return longitudinal.EntryPairs(*(column[list(best.values())] for column in found))
