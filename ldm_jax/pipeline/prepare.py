"""The stage `prepare` in parts: cohorts on disk -> the store, and what is said of them.

It leaves store/<cohort>.json and volumes in the store, and, where there is a private
cohort, privacy.json.
"""

from typing import Any

from ldm_jax.data import cohorts_of_config
from ldm_jax.data.cohorts.cohort import Cohort
from ldm_jax.data.inspection import attribute_summary, grid_fit
from ldm_jax.data.store import store
from ldm_jax.pipeline import fit_measuring_network, private_budget
from ldm_jax.pipeline.run import Run
from ldm_jax.workfolder import progress_bar

# A patient's name in these cohorts belongs into the store, not into a log.
UNNAMED = ('private', 'test')


def prepare(run: Run) -> dict[str, dict[str, int]]:
  """Files -> preprocessed volumes in the store, patient by patient.

  Returns:
    Per cohort the number of its patients and of the scans that were left out.

  Raises:
    ValueError: cohorts that cannot be read, or that share a scan.
  """
  summary: dict[str, dict[str, int]] = {}
  warnings: dict[str, None] = {}  # each once, in order
  for name, cohort in cohorts_of_config.cohorts(run.config.data).items():
    index = _store(run, name, cohort)
    _tell(run, name, index)
    warnings |= dict.fromkeys(attribute_summary.patients_without_values(cohort))
    summary[name] = {'patients': len(cohort), 'left_out': len(index['problems'])}
  found = run.prepared
  if 'public' in found:  # the size of private scans stays in the store
    poor = grid_fit.poor(run.spec, grid_fit.of_split(found['public']))
    remedy = '--stages=doctor proposes a grid that fits'
    warnings |= dict.fromkeys(f'{text}. {remedy}' for text in poor)
  for text in warnings:  # each once, last, so that it is seen
    print(f'prepare: WARNING {text}')
  store.check_distinct(found)
  fit_measuring_network.check(found)
  if 'private' in found:
    private_budget.write_statement(run)
  return summary


def _store(run: Run, name: str, cohort: Cohort) -> dict[str, Any]:
  with progress_bar(f'prepare {name}', len(cohort.records), 'volume') as advance:
    return store.prepare(
      run.work.store,
      cohort,
      run.spec,
      max_bad_fraction=run.config.data.max_bad_fraction,
      progress=advance,
      workers=run.config.run.workers,
      index=run.work.path('store', f'{name}.json'),
    )


def _tell(run, name, index):
  for problem in index['problems']:
    if name not in UNNAMED:
      run.work.log('prepare', cohort=name, problem=problem)
    print(f'prepare {name}: left out {problem["id"]}: {problem["reason"]}')
  # What the slices of private scans say stays in the store.
  jumps = store.slices_in_words(index) if name != 'private' else []
  for warning in [*index['notes'], *index['warnings'][:5], *jumps]:
    print(f'prepare {name}: {warning}')
