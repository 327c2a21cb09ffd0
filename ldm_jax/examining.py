"""The stage `doctor`: data and config are examined, nothing is trained.

doctor/<cohort>.json, doctor/plan.json, doctor/shared.json and report/doctor.html.
"""

import pathlib

from ldm_jax import estimating
from ldm_jax.data import demonstration, inspection, sources
from ldm_jax.report import examination, outlook, page
from ldm_jax.workfolder import progress_bar

# Scans of these cohorts' patients; what is seen of them stays with the data owner.
INTERNAL = ('private', 'test')


def examine(config, work, spec):
  """Reads the cohorts, estimates the run, prints the findings and writes the page.

  Args:
    config: of the run; `doctor.max_records` limits the scans read of a cohort.
    work: WorkFolder.
    spec: preprocess.Spec that is planned.

  Raises:
    ValueError: a cohort whose table or folder cannot be read at all.
  """
  looks, cohorts = {}, sources.cohorts(config.data, disjoint=False)
  limit = config.doctor.max_records or None
  for name, cohort in cohorts.items():
    total = min(len(cohort.records), limit or len(cohort.records))
    with progress_bar(f'doctor {name}', total, 'volume') as advance:
      looks[name] = inspection.inspect(cohort, limit, spec, advance)
    findings = {**looks[name].findings, 'internal': name in INTERNAL}
    work.write_json(findings, 'doctor', f'{name}.json')
  shared = inspection.shared(looks)
  work.write_json({'internal': True, 'shared': shared}, 'doctor', 'shared.json')
  plan = _plan(config, looks, cohorts)
  work.write_json(plan, 'doctor', 'plan.json')
  for name in looks:
    print(examination.text(looks[name].findings, internal=name in INTERNAL))
  print(outlook.text(plan, shared))
  path = page.write(
    work.path('report', 'doctor.html'),
    {
      'title': f'Examination of {config.name or pathlib.Path(work.root).name}',
      'subtitle': 'Data and config before anything is trained',
      'banner': demonstration.warning(config.data),
      'looks': looks,
      'internal': INTERNAL,
      'shared': shared,
      'plan': plan,
    },
    examination.sections(looks),
  )
  print(f'Examination: {path.resolve()}')


def _plan(config, looks, cohorts):
  """The estimates; a config whose networks cannot be built is one more finding."""
  try:
    plan = estimating.plan(
      config,
      next(iter(cohorts.values())).schema,
      {name: len(cohort) for name, cohort in cohorts.items()},
      {name: len(cohort.records) for name, cohort in cohorts.items()},
      estimating.machine_speed(),
    )
  except ValueError as error:
    plan = {'stages': [], 'noise': [], 'faults': [str(error)]}
  plan['stages'].insert(0, _preparing(looks, cohorts))
  return plan


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
