"""The stage `doctor`: data and config are examined, nothing is trained.

doctor/<cohort>.json, grid.json, plan.json and report/doctor.html tell of public cohorts
and of the run alone. What was found in private and test cohorts stays in store/doctor/,
with the whole page; the terminal says that there is some, and no counts.
"""

import dataclasses
import functools
import os
import pathlib
import sys

from ldm_jax.data import cohorts_of_config, demonstration_split
from ldm_jax.data.cohorts import roles
from ldm_jax.data.inspection import findings as inspection
from ldm_jax.pipeline import ahead_of_time, cost_estimate, grid_proposal, preflight
from ldm_jax.pipeline.run import Run
from ldm_jax.report import doctor_page, doctor_text, topology_text
from ldm_jax.workfolder import progress_bar

# What is found in these cohorts stays here.
INSIDE = ('store', 'doctor')


def examine(run: Run) -> None:
  """Reads the cohorts, estimates the run, prints the findings and writes the page.

  Args:
    run: `doctor.max_records` of its config limits the scans read of a cohort.

  Raises:
    ValueError: a cohort whose table or folder cannot be read at all, or an unknown
      `doctor.topology`.
  """
  config, work, spec = run.config, run.work, run.spec
  if config.doctor.topology:
    ahead_of_time.check(config.doctor.topology)
  looks, cohorts = {}, cohorts_of_config.cohorts(config.data, disjoint=False)
  limit = config.doctor.max_records or None
  for name, cohort in cohorts.items():
    total = min(len(cohort.records), limit or len(cohort.records))
    counted = name not in roles.CONFIDENTIAL
    with progress_bar(f'doctor {name}', total, 'volume', counted) as advance:
      looks[name] = inspection.inspect(
        cohort,
        limit,
        spec,
        advance,
        config.evaluate.labels,
        functools.partial(cohorts_of_config.explained, name=name, data=config.data),
      )
  internal = [name for name in looks if roles.is_internal([name])]
  shared, headlines = inspection.shared(looks), doctor_text.headlines(looks, internal)
  # Of a table that also lists private patients, the ids are theirs too.
  theirs = {entry['text'] for entry in headlines if entry['internal']}
  theirs |= {text for name in internal for text in looks[name].findings['notes']}
  for name, look in looks.items():
    if name not in internal:
      for key in (*doctor_text.HEADLINES, 'notes'):
        found = look.findings[key]
        look.findings[key] = [text for text in found if text not in theirs]
    place = INSIDE if name in internal else ('doctor',)
    findings = {**look.findings, 'internal': name in internal}
    work.write_json(findings, *place, f'{name}.json')
  found = {'internal': bool(internal), 'headlines': headlines, 'shared': shared}
  work.write_json(found, *INSIDE, 'shared.json')
  speed = cost_estimate.machine_speed()
  plan = _plan(config, cohorts, speed)
  grid = grid_proposal.suggest(config, looks, cohorts, spec, speed, plan)
  whole = {**plan, 'stages': [_preparing(looks, cohorts, internal), *plan['stages']]}
  work.write_json(whole, *INSIDE, 'plan.json')
  # The row of `prepare` knows the size of the largest scan.
  plan = plan if internal else whole
  work.write_json(plan, 'doctor', 'plan.json')
  if grid is not None:
    work.write_json(grid, 'doctor', 'grid.json')
  open_headlines = [entry for entry in headlines if not entry['internal']]
  told = doctor_text.headline_lines(open_headlines, _coloured())
  if told:
    print(told)
  withheld = len(headlines) - len(open_headlines)
  if withheld:
    print('WARNING [INTERNAL]: findings that name patients, see below')
  note = preflight.note_on_noise(config)
  if note:
    print(f'WARNING {note}')
  for name in looks:
    print(doctor_text.cohort_lines(looks[name].findings, internal=name in internal))
  if internal and shared:
    print('IN TWO COHORTS: some patients [INTERNAL]')
  # Without the row of `prepare` where that knows how many private scans there are.
  print(doctor_text.plan_lines(plan, [] if internal else shared))
  print(doctor_text.grid_lines(grid))
  if config.doctor.topology:
    found = ahead_of_time.examine(config, cohorts)
    # How many scans a private patient has at most decides the size of a step.
    work.write_json(found, *(INSIDE if internal else ('doctor',)), 'topology.json')
    print(topology_text.lines(found))
  content = {
    'title': f'Examination of {config.name or pathlib.Path(work.root).name}',
    'banner': demonstration_split.warning(config.data),
    'looks': {name: look for name, look in looks.items() if name not in internal},
    'internal': (),
    'headlines': open_headlines,
    'shared': [] if internal else shared,
    'plan': plan,
    'grid': grid,
    'examples': _examples(looks, cohorts, spec, grid),
  }
  path = doctor_page.write(work.path('report', 'doctor.html'), content)
  print(f'Examination: {path.resolve()}')
  if internal:
    content |= {'looks': looks, 'internal': internal, 'headlines': headlines}
    content |= {'shared': shared, 'plan': whole}
    path = doctor_page.write(work.path(*INSIDE, 'doctor.html'), content)
    print(f'With private scans, to stay with the data: {path.resolve()}')


def _examples(looks, cohorts, spec, grid):
  """Public scans before and after preprocessing, as planned and as proposed."""
  if grid is None:
    return []
  # Scans that prepare would refuse are shown, too: the picture says why.
  spec = dataclasses.replace(spec, least_filled=0.0)
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
      _num_scans(cohorts),
      speed,
    )
  except ValueError as error:
    return {'stages': [], 'noise': [], 'faults': [str(error)]}


def _num_scans(cohorts):
  """Cohort -> number of scans; of a confidential one as if each patient had as many as
  a public one has, since how many there really are must not be told."""
  found = {
    name: len(cohort.records)
    for name, cohort in cohorts.items()
    if name not in roles.CONFIDENTIAL
  }
  each = sum(found.values()) / max(sum(len(cohorts[name]) for name in found), 1)
  return {
    name: found.get(name, max(round(each), 1) * len(cohort))
    for name, cohort in cohorts.items()
  }


def _preparing(looks, cohorts, internal):
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
    'internal': bool(internal),  # their largest scan
  }
