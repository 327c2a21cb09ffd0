"""The stage `prepare` in parts: cohorts on disk -> the store, and what is said of them.

It leaves store/<cohort>.json and volumes in the store, and, where there is a private
cohort, privacy.json. Messages about patients who are not public are written to
store/notes-<cohort>.txt alone; the terminal says that there are some.
"""

import contextlib
from typing import Any

from ldm_jax import processes
from ldm_jax.data import cohorts_of_config
from ldm_jax.data.cohorts import roles
from ldm_jax.data.cohorts.cohort import Cohort
from ldm_jax.data.inspection import attribute_summary, grid_fit
from ldm_jax.data.store import remarks, store
from ldm_jax.pipeline import fit_measuring_network, private_budget
from ldm_jax.pipeline.run import PREPARED_WITH, Run, prepared_with
from ldm_jax.workfolder import progress_bar

NUM_SHOWN = 5  # notes, and warnings, of a cohort that are printed


def prepare(run: Run) -> dict[str, dict[str, int]]:
  """Files -> preprocessed volumes in the store, patient by patient.

  Returns:
    Per cohort the number of its patients and, of public ones, of the scans that were
    left out.

  Raises:
    ValueError: cohorts that cannot be read, or that share a scan.
  """
  if processes.count() > 1:
    _make_share(run)
  return processes.first(lambda: _prepare(run))


def _make_share(run):
  """Preprocesses this process's scans; the first process then says what is wrong."""
  found: list[Cohort] = []
  with contextlib.suppress(ValueError):
    found = [*cohorts_of_config.cohorts(run.config.data).values()]
  store.make_share(run.work.store, found, run.spec, run.config.run.workers)


def _prepare(run):
  run.work.write_json(prepared_with(run.config), *PREPARED_WITH)
  summary: dict[str, dict[str, int]] = {}
  warnings: dict[str, None] = {}  # each once, in order
  cohorts = cohorts_of_config.cohorts(run.config.data)
  _require_attributes(run.config.data, cohorts)
  headlines = {
    name: attribute_summary.patients_without_values(cohort)
    for name, cohort in cohorts.items()
  }
  # Of a table that also lists private patients, a message may name these.
  theirs = {
    text
    for name in set(cohorts) & set(roles.CONFIDENTIAL)
    for text in (*headlines[name], *cohorts[name].notes)
  }
  done: list[str] = []
  said = set(theirs)
  failures: list[ValueError] = []
  for name, cohort in cohorts.items():
    try:
      index = _store(run, name, cohort)
    except ValueError as error:  # the others are read too, so that all is told at once
      for line in getattr(error, 'lines', ()):
        print(f'prepare {name}: cannot be used: {line}')
      failures.append(error)
      continue
    summary[name] = {'patients': len(cohort)}
    if name in roles.CONFIDENTIAL:
      done.append(f'{name} {len(cohort)} patients')
      _note(run, name, index, headlines[name], cohort)
      continue
    done.append(f'{name} {len(cohort)} patients, {len(index["entries"])} scans')
    _tell(run, name, index, said, cohort)
    warnings |= dict.fromkeys(text for text in headlines[name] if text not in theirs)
    summary[name]['left_out'] = len(index['problems'])
  if failures:
    raise roles.joined(failures)
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
  shape = ' x '.join(map(str, run.spec.shape))
  print(f'prepare: {"; ".join(done)}; {shape} voxels each, in {run.work.store}')
  return summary


def _store(run: Run, name: str, cohort: Cohort) -> dict[str, Any]:
  total, counted = len(cohort.records), name not in roles.CONFIDENTIAL
  with progress_bar(f'prepare {name}', total, 'volume', counted) as advance:
    return store.prepare(
      run.work.store,
      cohort,
      run.spec,
      max_bad_fraction=run.config.data.max_bad_fraction,
      progress=advance,
      workers=run.config.run.workers,
      index=run.work.path('store', f'{name}.json'),
      explain=lambda text: cohorts_of_config.explained(text, name, run.config.data),
    )


def _require_attributes(data, cohorts):
  """Stops where attributes are asked for and no patient has any."""
  for names in cohorts_of_config.without_any_value(data, cohorts):
    if not data.require_attributes:
      continue
    total = sum(len(cohorts[name]) for name in names)
    schema = ', '.join(cohorts[names[0]].schema.names)
    raise ValueError(
      f'None of the {total} patients of {", ".join(f"data.{n}" for n in names)} has a '
      f'value of any attribute ({schema}); a model of them would not be controlled by '
      'anything. Expected a table whose ids are those of the scans, and its columns in '
      'data.schema: --stages=doctor shows both. For a model without attributes set '
      '--config.data.require_attributes=False.'
    )


def _labels(run, index, cohort, limit=remarks.NUM_NAMED):
  scans = store.scans_of(index, cohort)
  return remarks.unlisted_labels(scans, run.config.evaluate.labels, limit)


def _tell(run, name, index, said, cohort):
  """Prints the messages about a public cohort, but for those of `said`, once each."""
  for problem in index['problems']:
    run.work.log('prepare', cohort=name, problem=problem)
    print(f'prepare {name}: left out {problem["id"]}: {problem["reason"]}')
  jumps = store.slices_in_words(index)
  for texts in (index['notes'], index['warnings']):
    new = [text for text in dict.fromkeys(texts) if text not in said]
    said.update(new)
    for text in new[:NUM_SHOWN]:
      print(f'prepare {name}: {text}')
    if len(new) > NUM_SHOWN:
      path = run.work.root / 'store' / f'{name}.json'
      print(f'prepare {name}: and {len(new) - NUM_SHOWN} more like these, in {path}')
  for text in jumps:
    print(f'prepare {name}: {text}')
  for text in index['remarks']:
    print(f'prepare {name}: {text}')
  for text in _labels(run, index, cohort):
    print(f'prepare {name}: WARNING {text}')


def _note(run, name, index, headlines, cohort):
  """Writes the messages about a confidential cohort to the store; prints that they are
  there, and no counts of them: these would be statistics without noise.
  """
  parts = {
    'left out': [f'{p["id"]}: {p["path"]}: {p["reason"]}' for p in index['problems']],
    'attributes': headlines,
    'notes': [*index['notes'], *index['warnings'], *store.slices_in_words(index)],
    'remarks': index['remarks'],
    'labels': _labels(run, index, cohort, len(cohort)),
  }
  lines = [f'{title}: {text}' for title, found in parts.items() for text in found]
  path = roles.write_notes(run.work.store, name, lines)
  if lines:
    kinds = ', '.join(title for title, found in parts.items() if found)
    sign = 'WARNING ' if parts['left out'] or headlines or parts['labels'] else ''
    print(f'prepare {name}: {sign}{kinds}: see {path}')
