"""Utility in the stage `evaluate`: which scans train and test, and the synthetic ones.

The arms are the real scans that the model was adapted to, synthetic scans, both, and,
where the model was adapted, the public scans that one has without it. They are tested
on held-out patients of the population that the model imitates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax import processes
from ldm_jax.config.parsing import override
from ldm_jax.data.cohorts import label_values, roles
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.store import labelled
from ldm_jax.data.store.split import Split
from ldm_jax.evaluation import groups, measuring_network, utility
from ldm_jax.pipeline.run import Run
from ldm_jax.synthesis import generate, mask_requests, requests, write_samples
from ldm_jax.training import label_masks, networks
from ldm_jax.training.mesh import make_mesh
from ldm_jax.types import Config
from ldm_jax.workfolder import progress_bar

REAL, TEST = ('private', 'public'), ('test', 'public_test')


def check(run: Run) -> None:
  """Refuses, before anything is trained, cohorts on which utility cannot be measured.

  Raises:
    ValueError: no held-out cohort, scans without labels, or an unknown attribute.
  """
  config, found = run.config, run.prepared
  section = config.evaluate.utility
  if not section.use:
    return
  test = next((name for name in TEST if name in found), None)
  if test is None:
    raise ValueError(
      'evaluate.utility.use is set, but there are no held-out patients to test on. '
      'Name a labelled cohort in data.test (or data.public_test), or set '
      '--config.evaluate.utility.use=False.'
    )
  for name in (test, *(name for name in REAL if name in found)):
    if not found[name].is_labelled:
      raise ValueError(
        f'evaluate.utility.use is set, but not every scan of data.{name} has labels, '
        'which segmenters learn from and are tested with. Name the label files '
        f'(data.{name}.options.label), or set --config.evaluate.utility.use=False.'
      )
  _columns(section, run.schema)


def measure(
  run: Run,
  network: measuring_network.MeasuringNetwork | measuring_network.PooledLatents,
) -> dict[str, Any]:
  """The entry `utility` of metrics.json; every figure says what it read.

  Args:
    run: whose stages up to `sample` have finished.
    network: labels the synthetic scans of a model that draws none.
  """
  config, section = run.config, run.config.evaluate.utility
  found, values = run.splits, config.evaluate.labels
  real_name, test_name = (
    next(name for name in names if name in found) for names in (REAL, TEST)
  )
  real, test = (_pairs(found[name], values) for name in (real_name, test_name))
  drawn, labels_from = _synthetic(
    run, network, math.ceil(max(section.times) * real.num)
  )
  arms: dict[str, Any] = _arms(real, drawn, section.times)
  reads: dict[str, tuple[str, ...]] = {}
  for name, sources in arms.items():
    reads[name] = (test_name, *((real_name,) if real in sources else ()))
  if real_name != 'public' and 'public' in found:
    arms['public'] = (_pairs(found['public'], values),)
    reads['public'] = (test_name, 'public')
  spacing = found[test_name].spacing_mm
  # Several processes do the same: small networks, whose batches are not worth sharing.
  total = len(arms) * section.seeds
  with progress_bar('utility', total, 'training') as advance, processes.alone():
    scores = utility.scores(
      arms,
      test,
      networks.segmenter(config),
      config.evaluate,
      spacing,
      mesh=make_mesh(data=1),
      seed=config.seed,
      columns=_columns(section, run.schema),
      advance=advance,
    )
  patients = found[test_name].patients
  names = list(label_values.named(values, config.evaluate.label_names).values())
  figures = utility.figures(scores, patients, names, config.evaluate.num_bootstrap)
  content = _marked(figures, reads, (real_name, test_name))
  if config.evaluate.groups.by:
    content['groups'] = _by_group(run, scores, found[test_name], reads)
  for name, sources in arms.items():
    content[name]['scans'] = ' + '.join(str(source.num) for source in sources)
  return content | {'labels_from': labels_from, 'steps': section.steps}


def _by_group(run, scores, test, reads):
  """{attribute: {group: {arm: Dice}}} of the held-out patients of each group."""
  section, content = run.config.evaluate, {}
  grouped = groups.of_schema(run.schema, test.attributes, test.patients, section.groups)
  patients = np.asarray(test.patients)
  for column, attribute, found in grouped:
    for group in found:
      codes = test.attributes[:, column]
      rows = groups.members(group, attribute, codes, section.groups)
      content.setdefault(attribute.name, {})[group.name] = {
        arm: utility.figure(
          utility.class_means(each.dice[:, rows]),
          patients[rows],
          num_resamples=section.num_bootstrap,
        )
        | roles.mark(*reads[arm])
        for arm, each in scores.items()
      }
  return content


def _arms(real, drawn, times):
  """Name -> sources; the first number of synthetic scans has the plain names."""
  arms = {'real': (real,)}
  for number, each in enumerate(times):
    ending = f'_{each:g}x' if number else ''
    rows = np.arange(math.ceil(each * real.num))
    part = utility.Pairs(len(rows), drawn.take, drawn.attributes[rows])
    arms[f'synthetic{ending}'] = (part,)
    arms[f'both{ending}'] = (real, part)
  return arms


def _marked(figures, reads, both):
  """Figures with what they read; a difference also read the arm of real scans."""
  content: dict[str, Any] = {}
  for name, part in figures.items():
    if name in reads:
      content[name] = roles.marked(part, roles.mark(*reads[name]))
    else:
      content[name] = {
        arm: roles.marked(inner, roles.mark(*both, *reads[arm]))
        for arm, inner in part.items()
      }
  return content


def _pairs(split: Split, values) -> utility.Pairs:
  def take(rows):
    labels = labelled.labels(split, rows)
    return split.volumes(rows), label_values.classes_of(labels, values)

  return utility.Pairs(len(split), take, split.attributes)


def _synthetic(run, network, num):
  """Synthetic scans with label maps, and who says what their labels are."""
  config = override(
    run.config.copy_and_resolve_references(),
    {'sample.num': num, 'sample.seed': run.config.sample.seed + 1},
  )
  released = run.work.read_json(*requests.PRIOR) or {}
  public = run.splits.get('public')
  vectors = requests.draw(config, run.schema, public, released.get('prior'))
  masks, asked = mask_requests.draw(config, public, num), vectors
  if masks is not None:
    asked = np.concatenate([vectors, label_masks.columns(config, masks)], 1)
  sample, decode, finish = write_samples.compiled(config, run.system)
  with progress_bar('utility: synthetic scans', num, 'volume') as advance:
    drawn = generate.generate(
      sample,
      decode,
      run.system.params,
      asked,
      run.key('utility'),
      batch_size=config.sample.batch_size,
      progress=advance,
      finish=finish,
      **write_samples.noise_ids(config, num),
    )
  volumes, classes = write_samples.parted(drawn)
  origin = 'the model, which draws them with the scans'
  if classes is None:
    classes, origin = network.labels(volumes), f'the {network.name}'
    if masks is not None:
      classes, origin = masks, 'the label maps that the scans were drawn for'
  return utility.of_arrays(volumes, classes, vectors), origin


def _columns(section: Config, schema: Schema) -> Mapping[str, tuple[int, float]]:
  """Attribute -> (column, units per encoded unit) of `utility.attributes`.

  Raises:
    ValueError: one that the schema does not have or that is no number.
  """
  found = {}
  for name in section.attributes:
    place = schema.names.index(name) if name in schema.names else -1
    attribute = list(schema)[place]
    if place < 0 or attribute.kind != 'continuous':
      known = [each.name for each in schema if each.kind == 'continuous']
      raise ValueError(
        f'evaluate.utility.attributes names {name!r}, expected some of the continuous '
        f'attributes {", ".join(known)}.'
      )
    low, high = attribute.limits
    found[name] = (place, (high - low) / 2)
  return found
