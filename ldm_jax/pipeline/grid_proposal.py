"""A grid and batches that fit the public scans, as a command that is ready to run.

Shape and spacing come from public scans alone: what private scans look like determines
nothing that is released. Of private patients only their number is used.
"""

import math
import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax.config import checks, parsing
from ldm_jax.data.cohorts.cohort import Cohort
from ldm_jax.data.inspection import findings, grid_fit, thumbnail
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.pipeline import cost_estimate
from ldm_jax.training.mesh import check_divides, make_mesh
from ldm_jax.types import Config

EXAMPLES = 3  # scans that are shown
MEMORY = 0.5  # share of the machine's memory that a stage may plan with
BATCHES = ('autoencoder', 'diffusion')


def suggest(
  config: Config,
  looks: Mapping[str, findings.Look],
  cohorts: Mapping[str, Cohort],
  spec: preprocess.Spec,
  speed: float,
  plan: Mapping[str, Any],
) -> dict[str, Any] | None:
  """The planned grid beside one that fits the public scans.

  Args:
    config: of the run; `doctor.max_voxels` bounds the box, `doctor.command` is what was
      called.
    looks, cohorts: cohort name -> inspection.Look, Cohort.
    spec: preprocess.Spec that is planned.
    speed: operations a second, `cost_estimate.machine_speed`.
    plan: `cost_estimate.plan` of the config.

  Returns:
    None without public scans, or a JSON-able dict: 'scans', 'now' and 'proposed'
    ({'shape', 'spacing_mm', 'kept', 'inside', 'poor', 'seconds'}), 'same' (the planned
    grid fits and is kept), 'overrides', 'command' ('' where 'fault' says why there is
    none), 'fault'.
  """
  geometries = looks['public'].geometries if 'public' in looks else []
  # The grid of a phantom that stands in for public patients says nothing of the scans.
  layouts = [config.data[name].layout for name in ('public', 'private')]
  stands_in = layouts[0].startswith('phantom_') and layouts[1] not in ('', layouts[0])
  if not geometries or stands_in:
    return None
  room = config.doctor.max_voxels or math.prod(spec.shape)
  proposed = grid_fit.propose(geometries, spec, multiples(config), room)
  if grid_fit.fits(spec, geometries, proposed):
    proposed = spec
  found = {
    'scans': len(geometries),
    'now': _row(spec, geometries),
    'proposed': _row(proposed, geometries),
    'same': proposed == spec,
    'overrides': {},
    'command': '',
    'fault': '',
  }
  overrides = {
    'data.preprocess.shape': proposed.shape,
    'data.preprocess.spacing_mm': proposed.spacing_mm,
  }
  try:
    overrides, used = _with_batches(config, overrides, cohorts, speed, plan)
  except ValueError as error:
    return {**found, 'fault': str(error)}
  for name, stages in (('now', plan['stages']), ('proposed', used['stages'])):
    found[name]['seconds'] = sum(row['seconds'] or 0 for row in stages)
  text = command(config.doctor.command, overrides)
  return {**found, 'overrides': overrides, 'command': text}


def multiples(config: Config) -> tuple[int, ...]:
  """(d,h,w), of which the networks' strides want the shape to be multiples."""
  model = config.autoencoder.model
  strides = [*model.strides]
  if model.kind == 'network' and model.patch:
    strides += [model.patch]
  if config.diffusion.model.kind != 'dit':
    strides += config.diffusion.model.strides
  product = lambda levels: [math.prod(axis) for axis in zip(*levels, strict=True)]
  ones = [(1, 1, 1)]
  segmenter = config.evaluate.segmenter
  measuring = product([segmenter.patch or ones[0], *segmenter.strides, *ones])
  pairs = zip(product([*strides, *ones]), measuring, strict=True)
  return tuple(math.lcm(*pair) for pair in pairs)


def command(words: Sequence[str], overrides: Mapping[str, Any]) -> str:
  """A command line with these overrides in place of its own.

  Args:
    words: the command's arguments; () where there was none, which leaves flags only.
    overrides: config key -> value.
  """
  flags = {f'--config.{key}=': value for key, value in overrides.items()}
  kept = [word for word in words if not word.startswith(tuple(flags))]
  added = [flag + str(value).replace(' ', '') for flag, value in flags.items()]
  start = ['ldm-jax'] if kept else []
  return ' \\\n  '.join(start + [shlex.quote(word) for word in (*kept, *added)])


def machine_memory() -> int:
  """Bytes that the first device has; on a CPU, what this process may use."""
  statistics = jax.devices()[0].memory_stats() or {}
  if statistics.get('bytes_limit'):
    return int(statistics['bytes_limit'])
  found = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  limit = pathlib.Path('/sys/fs/cgroup/memory.max')  # of a container
  text = limit.read_text().strip() if limit.is_file() else ''
  return min(found, int(text)) if text.isdigit() else found


def examples(
  cohort: Cohort, ids: Sequence[str], specs: Mapping[str, preprocess.Spec]
) -> list[dict[str, Any]]:
  """Middle planes of some scans on their own grid and as each spec leaves them.

  Args:
    cohort: public; ids: of its readable records.
    specs: name -> preprocess.Spec.

  Returns:
    [{'id', 'panels': [(name, shape, spacing, (p,size,size) uint8)]}].
  """
  chosen = np.linspace(0, len(ids) - 1, min(EXAMPLES, len(ids))).round().astype(int)
  records = {record.id: record for record in cohort.records}
  shown = []
  for number in chosen:
    try:
      scan, label = records[ids[number]].source.read()
      made = {n: preprocess.apply(spec, scan, label) for n, spec in specs.items()}
    except ValueError:  # the stage prepare will tell
      continue
    limits = next(iter(made.values())).record['intensity']
    panels = [_panel('file', scan.array, scan.spacing, limits)]
    for name, processed in made.items():
      spacing = scan.spacing * np.array(processed.record['scale'])
      panels.append(_panel(name, processed.array, spacing, (0, 1)))
    shown.append({'id': ids[number], 'panels': panels})
  return shown


def _panel(name, array, spacing, limits):
  return name, array.shape, spacing, thumbnail.planes(array, spacing, limits)


def _row(spec, geometries):
  """What a spec leaves of the scans: medians, and the worst of most of them."""
  kept = np.array([grid_fit.kept(spec, geometry) for geometry in geometries])
  inside = [grid_fit.inside(spec, geometry) for geometry in geometries]
  return {
    'shape': list(spec.shape),
    'spacing_mm': list(spec.spacing_mm),
    'kept': np.median(kept, 0).astype(int).tolist(),
    'inside': float(np.percentile(inside, 100 - grid_fit.COVERED)),
    'poor': sum(grid_fit.is_poor(spec, geometry) for geometry in geometries),
    'seconds': None,
  }


def _with_batches(config, overrides, cohorts, speed, plan):
  """The overrides with batches for these cohorts and this memory, and their plan."""
  mesh, patients = make_mesh(**config.mesh), {n: len(c) for n, c in cohorts.items()}
  scans = {name: len(cohort.records) for name, cohort in cohorts.items()}
  for stage in BATCHES:
    overrides[f'{stage}.batch_size'] = _halved(
      config[stage].batch_size, scans['public'], mesh.size
    )
  privacy = config.adapt.privacy
  if privacy is not None and 'private' in patients:
    key = 'adapt.privacy.batch_size'
    overrides[key] = _halved(privacy.batch_size, patients['private'], 1)
  room = MEMORY * machine_memory()
  while True:
    planned = parsing.override(config.copy_and_resolve_references(), overrides)
    checks.check(planned)
    schema = next(iter(cohorts.values())).schema
    if parsing.to_plain(planned) != parsing.to_plain(config):
      plan = cost_estimate.plan(planned, schema, patients, scans, speed)
    if plan['faults']:
      raise ValueError(plan['faults'][0])
    smaller = {}
    for row in plan['stages']:
      if row['stage'] not in BATCHES:
        continue
      key = f'{row["stage"]}.batch_size'
      fixed = 4 * cost_estimate.COPIES * row['parameters']
      each = max(1, (row['memory_bytes'] - fixed) / overrides[key])
      smaller[key] = _halved(overrides[key], (room - fixed) / each, mesh.size)
    if all(overrides[key] == value for key, value in smaller.items()):
      break
    overrides = {**overrides, **smaller}
  check_divides(mesh, {key: overrides[key] for key in smaller})
  return overrides, plan


def _halved(size, most, multiple):
  """The largest of size, size / 2, ... up to `most`, as a multiple of `multiple`."""
  while size > max(most, multiple):
    size //= 2
  return max(multiple, size // multiple * multiple)
