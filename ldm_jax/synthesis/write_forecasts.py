"""Predicts the later visits of patients from their earlier ones, for the evidence.

The editor gets the earlier scan and the attributes of both visits. The later scan is
only compared with the result. For each patient, one pair of visits is used: the one
with the longest gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from ldm_jax import atomic
from ldm_jax.data.store import visit_pairs
from ldm_jax.synthesis.edit import in_batches
from ldm_jax.synthesis.editors import registry
from ldm_jax.synthesis.system import System
from ldm_jax.synthesis.write_counterfactuals import setting_of
from ldm_jax.types import Config

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split
  from ldm_jax.workfolder import WorkFolder

# Stored so that evaluation need not read the store again.
FORECASTS = 'forecasts.npz'


def write_forecasts(
  config: Config,
  work: WorkFolder,
  system: System,
  split: Split | None,
  key: jax.Array | None = None,
) -> int:
  """Predicts the later visit of at most `counterfactual.forecasts` patients.

  Args:
    config, work: of the run.
    system: fitted system that the editor uses.
    split: prepared cohort, or None.
    key: of the noise that some editors draw.

  Returns:
    Number of patients; without repeated visits nothing is written.
  """
  section = config.counterfactual
  if split is None or not section.forecasts:
    return 0
  found = longest(split, config.adapt.pairs)
  if not len(found.years):
    return 0
  earlier, later, years = (column[: section.forecasts] for column in found)
  x = split.volumes(earlier)
  setting = setting_of(config, system, key)
  result = in_batches(
    config.sample.batch_size,
    registry.make(section.editor, setting, **section[section.editor]),
    system,
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
    years=years,
    patients=[split.patients[index] for index in earlier],
    cohort=split.name,
  )
  return len(earlier)


def longest(split: Split, section: Config) -> visit_pairs.EntryPairs:
  """Each patient's pair of visits with the longest gap, within `adapt.pairs`' limits.

  Args:
    split: prepared cohort.
    section: config.adapt.pairs; its min_years and max_years are used.
  """
  found = visit_pairs.entry_pairs(split, section.min_years, section.max_years)
  best: dict[str, int] = {}
  for number, index in enumerate(found.earlier):
    patient = split.patients[index]
    if patient not in best or found.years[number] > found.years[best[patient]]:
      best[patient] = number
  return visit_pairs.EntryPairs(*(column[list(best.values())] for column in found))
