"""The stage `doctor`: data and config are examined, nothing is trained.

doctor/<cohort>.json, grid.json, plan.json, shared.json and report/doctor.html.
"""

import dataclasses
import os
import pathlib
import sys

from ldm_jax.data import cohorts_of_config, demonstration_split
from ldm_jax.data.inspection import findings as inspection
from ldm_jax.pipeline import cost_estimate, grid_proposal
from ldm_jax.pipeline.run import Run
from ldm_jax.report import doctor_page, doctor_text
from ldm_jax.workfolder import progress_bar

# Scans of these cohorts' patients; what is seen of them stays with the data owner.
INTERNAL = ('private', 'test')


def examine(run: Run) -> None:
  """Reads the cohorts, estimates the run, prints the findings and writes the page.

  Args:
    run: `doctor.max_records` of its config limits the scans read of a cohort.

  Raises:
    ValueError: a cohort whose table or folder cannot be read at all.
  """
  config, work, spec = run.config, run.work, run.spec
  looks, cohorts = {}, cohorts_of_config.cohorts(config.data, disjoint=False)
  limit = config.doctor.max_records or None
  for name, cohort in cohorts.items():
    total = min(len(cohort.records), limit or len(cohort.records))
    with progress_bar(f'doctor {name}', total, 'volume') as advance:
      looks[name] = inspection.inspect(cohort, limit, spec, advance)
  shared, headlines = (
    inspection.shared(looks),
    doctor_text.headlines(looks, INTERNAL),
  )
  for name, look in looks.items():
    # Of a table that also lists private patients, the ids are theirs too.
    theirs = {entry['text'] for entry in headlines if entry['internal']}
    unmatched = [text for text in look.findings['unmatched'] if text not in theirs]
    findings = {**look.findings, 'unmatched': unmatched, 'internal': name in INTERNAL}
    work.write_json(findings, 'doctor', f'{name}.json')
  found = {'internal': True, 'headlines': headlines, 'shared': shared}
  work.write_json(found, 'doctor', 'shared.json')
  speed = cost_estimate.machine_speed()
  plan = _plan(config, cohorts, speed)
  grid = grid_proposal.suggest(config, looks, cohorts, spec, speed, plan)
  plan['stages'].insert(0, _preparing(looks, cohorts))
  work.write_json(plan, 'doctor', 'plan.json')
  if grid is not None:
    work.write_json(grid, 'doctor', 'grid.json')
  told = doctor_text.headline_lines(headlines, _coloured())
  if told:
    print(told)
  for name in looks:
    print(doctor_text.cohort_lines(looks[name].findings, internal=name in INTERNAL))
  print(doctor_text.plan_lines(plan, shared))
  print(doctor_text.grid_lines(grid))
  path = doctor_page.write(
    work.path('report', 'doctor.html'),
    {
      'title': f'Examination of {config.name or pathlib.Path(work.root).name}',
      'banner': demonstration_split.warning(config.data),
      'looks': looks,
      'internal': INTERNAL,
      'headlines': headlines,
      'shared': shared,
      'plan': plan,
      'grid': grid,
      'examples': _examples(looks, cohorts, spec, grid),
    },
  )
  print(f'Examination: {path.resolve()}')


def _examples(looks, cohorts, spec, grid):
  """Public scans before and after preprocessing, as planned and as proposed."""
  if grid is None:
    return []
  specs, wanted = {'this config': spec}, grid['proposed']
  if not grid['same']:
    changes = {key: tuple(wanted[key]) for key in ('shape', 'spacing_mm')}
    specs['proposed'] = dataclasses.replace(spec, **changes)
  return grid_proposal.examples(cohorts['public'], looks['public'].ids, specs)


def _coloured():
  return sys.stdout.isatty() and not os.environ.get('NO_COLOR')


def _plan(config, cohorts, speed):
  """The estimates; a config whose networks cannot be built is one more finding."""
  try:
    return cost_estimate.plan(
      config,
      next(iter(cohorts.values())).schema,
      {name: len(cohort) for name, cohort in cohorts.items()},
      {name: len(cohort.records) for name, cohort in cohorts.items()},
      speed,
    )
  except ValueError as error:
    return {'stages': [], 'noise': [], 'faults': [str(error)]}


def _preparing(looks, cohorts):
  """`prepare` as a row of the plan: reading was measured, the rest costs as much."""
  seconds = sum(2 * looks[name].seconds * len(cohorts[name].records) for name in looks)
  # Of a scan: its file's voxels, float32, a resampled copy and masks, in two threads.
  memory = 2 * 16 * max(look.voxels for look in looks.values())
  return {
    'stage': 'prepare',
    'parameters': 0,
    'memory_bytes': int(memory),
    'seconds': seconds,
    'note': f'{sum(len(c.records) for c in cohorts.values())} scans',
    'internal': any(name in INTERNAL for name in looks),  # their largest scan
  }
