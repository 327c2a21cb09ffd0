"""Of what use are synthetic scans? Segmenters trained on them, tested on real patients.

Each arm trains the same network for the same number of steps, on real scans, on
synthetic ones or on both, and is tested on the same patients, whom no model has seen.
Differences between arms are paired: by patient, and by seed of the training.

Volumes are (n,d,h,w,1) in [0,1], label maps class indices (n,d,h,w).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ldm_jax import prng
from ldm_jax.data.batching import epoch_batch
from ldm_jax.evaluation import intervals, label_maps, measuring_network
from ldm_jax.models.critics.segmenter import Segmenter
from ldm_jax.training import encoding, networks, optimizers, state
from ldm_jax.training.mesh import put_examples
from ldm_jax.training.packing import Packing
from ldm_jax.training.plain_step import plain_step
from ldm_jax.types import Array, Config, Progress, PyTree

BASELINE = 'real'  # the arm with which the others are compared
FIGURES = {'dice': 'dice', 'hd95_mm': 'distances'}  # of metrics.json -> of `Scores`
EMA_DECAY, WARM_UP = 0.98, 20  # as of the measuring network


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """Scans with label maps.

  Attributes:
    num: how many.
    take: indices (b,) -> (volumes (b,d,h,w,1), class indices (b,d,h,w)).
    attributes: (num,k) encoded, NaN where unknown.
  """

  num: int
  take: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
  attributes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scores:
  """Of one arm on the test scans, for each seed.

  Attributes:
    dice: (seeds,n,classes - 1) overlap; NaN where a class is absent from both maps.
    distances: (seeds,n,classes - 1) 95th percentiles of surface distances in mm.
    errors: attribute -> (seeds,n) absolute errors in its unit.
  """

  dice: np.ndarray
  distances: np.ndarray
  errors: Mapping[str, np.ndarray]


def trainer(
  module: Segmenter, section: Config, num_steps: int, mesh: Mesh
) -> Callable[[Sequence[Pairs], int], PyTree]:
  """Returns train(sources, seed) -> parameters; all arms share one compilation.

  Every batch holds equally many scans of each source.

  Args:
    module: the network.
    section: config.evaluate.segmenter: batch_size, optimizer, learning_rate.
    num_steps: of every arm.
    mesh: devices of this process.
  """

  def example_losses(trained, frozen, batch, keys, step):
    del frozen, keys, step
    apply: Callable[..., Any] = module.apply
    logits = apply({'params': state.unflatten(trained)}, batch['x'])
    return measuring_network.segmentation_loss(logits, batch['classes']), {}

  compiled: dict[str, Any] = {}

  def prepare(x):
    params = networks.initialise(module, prng.key(0), x[:1])
    packing = Packing(state.flatten(params))
    optimizer = optimizers.public(
      section.optimizer, packing, section.learning_rate, num_steps, warm_up=WARM_UP
    )
    step = plain_step(packing.losses(example_losses), optimizer, mesh, EMA_DECAY)
    compiled.update(packing=packing, optimizer=optimizer, step=step)

  def train(sources, seed):
    x, _ = batch_of(sources, section.batch_size, seed, 0)
    if not compiled:
      prepare(x)
    packing, key = compiled['packing'], jax.random.fold_in(prng.key(0), seed)
    flat = state.flatten(networks.initialise(module, key, x[:1]))
    current = state.create(packing.pack(flat), compiled['optimizer'])
    for number in range(num_steps):
      x, classes = batch_of(sources, section.batch_size, seed, number)
      batch = put_examples(mesh, {'x': x, 'classes': classes})
      current, _ = compiled['step'](current, {}, batch, key)
    return state.unflatten(packing.unpack(current.ema))

  return train


def batch_of(
  sources: Sequence[Pairs], size: int, seed: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
  """Augmented batch (b,d,h,w,1), (b,d,h,w), equally many of each source."""
  parts = []
  for place, source in enumerate(sources):
    share = max(1, size // len(sources) + (place < size % len(sources)))
    chosen = epoch_batch(source.num, share, seed * len(sources) + place, number, True)
    parts.append(source.take(chosen))
  x, classes = (np.concatenate(part) for part in zip(*parts, strict=True))
  return measuring_network.augment(x, classes, np.random.default_rng((seed, number)))


def scores(
  arms: Mapping[str, Sequence[Pairs]],
  test: Pairs,
  module: Segmenter,
  section: Config,
  spacing_mm: Array,
  *,
  mesh: Mesh,
  seed: int = 0,
  columns: Mapping[str, tuple[int, float]] | None = None,
  advance: Progress | None = None,
) -> dict[str, Scores]:
  """Trains and tests every arm, once for each seed.

  Args:
    arms: name -> sources of its training scans.
    test: held-out real scans.
    module: the network that every arm trains.
    section: config.evaluate.
    spacing_mm: (3,) voxel size (d,h,w) of the test scans.
    mesh: devices of this process.
    seed: of the first training.
    columns: attribute -> (its column, units per encoded unit); of these the error of a
      ridge regression on what each network has learned to see is measured.
    advance: of a progress bar, a step for each training.
  """
  options, size = section.utility, section.segmenter.batch_size
  train = trainer(module, section.segmenter, options.steps, mesh)
  x, truth = test.take(np.arange(test.num))
  found: dict[str, Any] = {name: [] for name in arms}
  for number in range(options.seeds):
    for name, sources in arms.items():
      params = train(sources, seed + number)
      guess = _in_batches(_classes, module, params, x, size)
      errors = {}
      if columns:
        see = functools.partial(_in_batches, _features, module, params, size=size)
        errors = _errors(see, sources, x, test.attributes, columns)
      found[name].append(
        (
          label_maps.dice(guess, truth, module.num_classes),
          label_maps.surface_distance_mm(guess, truth, module.num_classes, spacing_mm),
          errors,
        )
      )
      if advance is not None:
        advance(sum(map(len, found.values())))
  return {name: _stacked(each) for name, each in found.items()}


def _stacked(each):
  overlap, distances, errors = zip(*each, strict=True)
  joined = {name: np.stack([one[name] for one in errors]) for name in errors[0]}
  return Scores(np.stack(overlap), np.stack(distances), joined)


# Compiled once for all arms and seeds.
@functools.partial(jax.jit, static_argnums=0)
def _classes(module, params, x):
  return jnp.argmax(module.apply({'params': params}, x), -1)


@functools.partial(jax.jit, static_argnums=0)
def _features(module, params, x):
  return module.apply({'params': params}, x, method='features')


def _in_batches(function, module, params, x, size):
  return encoding.apply_in_batches(lambda part: function(module, params, part), x, size)


def _errors(see, sources, x, attributes, columns):
  """Absolute errors (n,) of each attribute, from features of the arm's own network."""
  features, known = [], []
  for source in sources:
    rows = np.arange(source.num)
    for start in range(0, source.num, 64):
      features.append(see(x=source.take(rows[start : start + 64])[0]))
    known.append(source.attributes)
  features, known = np.concatenate(features), np.concatenate(known)
  own = see(x=x)
  return {
    name: scale * np.abs(ridge(features, known[:, column], own) - attributes[:, column])
    for name, (column, scale) in columns.items()
  }


def ridge(features: Array, values: Array, others: Array, penalty: float = 1.0) -> Array:
  """Values of others (m,f), by ridge regression on features (n,f) and values (n,).

  Features are standardised; rows with an unknown value (NaN) are left out. NaN for all
  where fewer than two values are known.
  """
  there = np.isfinite(values)
  if there.sum() < 2:
    return np.full(len(others), np.nan)
  features, values = np.asarray(features, np.float64)[there], values[there]
  centre, spread = features.mean(0), features.std(0) + 1e-6
  scaled, mean = (features - centre) / spread, values.mean()
  gram = scaled.T @ scaled + penalty * np.eye(scaled.shape[1])
  weights = np.linalg.solve(gram, scaled.T @ (values - mean))
  return (np.asarray(others, np.float64) - centre) / spread @ weights + mean


def figures(
  found: Mapping[str, Scores],
  patients: Array,
  names: Sequence[str],
  num_resamples: int = 200,
) -> dict[str, Any]:
  """Figures of the arms and of their differences from the arm on real scans.

  Args:
    found: of `scores`.
    patients: (n,) patient of each test scan.
    names: of the classes, background first.
    num_resamples: of the bootstrap, which draws patients and seeds.

  Returns:
    {arm: {'dice', 'hd95_mm', 'dice_by_label': {name}, 'mae': {attribute}},
     'minus_real': {arm: {'dice', 'hd95_mm'}}, 'share_of_real': {arm: {'dice'}}}.
  """
  means = {
    arm: {key: class_means(getattr(each, part)) for key, part in FIGURES.items()}
    for arm, each in found.items()
  }
  content: dict[str, Any] = {}
  for arm, each in found.items():
    content[arm] = {
      key: figure(values, patients, num_resamples=num_resamples)
      for key, values in means[arm].items()
    }
    content[arm]['dice_by_label'] = {
      name: figure(each.dice[..., index], patients, num_resamples=num_resamples)
      for index, name in enumerate(names[1:])
    }
    if each.errors:
      content[arm]['mae'] = {
        name: figure(values, patients, num_resamples=num_resamples)
        for name, values in each.errors.items()
      }
  if BASELINE not in found:
    return content
  others = [arm for arm in found if arm != BASELINE]
  content['minus_real'] = {
    arm: {
      key: figure(means[arm][key] - means[BASELINE][key], patients, None, num_resamples)
      for key in FIGURES
    }
    for arm in others
  }
  content['share_of_real'] = {
    arm: {
      'dice': figure(
        means[arm]['dice'], patients, means[BASELINE]['dice'], num_resamples
      )
    }
    for arm in others
  }
  return content


def class_means(values: np.ndarray) -> np.ndarray:
  """(seeds,n,k) -> (seeds,n), mean over the classes that are there (not NaN)."""
  known = np.isfinite(values)
  total = np.where(known, values, 0).sum(-1)
  return np.where(known.any(-1), total / np.maximum(known.sum(-1), 1), np.nan)


def figure(
  values: Array,
  patients: Array,
  bottom: Array | None = None,
  num_resamples: int = 200,
) -> dict[str, Any]:
  """Figure of the mean of (seeds,n) values over patients and seeds.

  The interval is a bootstrap that draws patients and seeds at once, so that it covers
  both another cohort of this size and another training.

  Args:
    values: NaN leaves out a scan in all seeds.
    patients: (n,) patient of each scan.
    bottom: values (seeds,n) whose mean the mean is divided by.
    num_resamples: of the bootstrap.
  """
  parts = [values] if bottom is None else [values, bottom]
  known = np.all([np.isfinite(part).all(0) for part in parts], 0)
  groups = np.asarray(patients)[known]
  result: dict[str, Any] = dict.fromkeys(('value', 'low', 'high'))
  result |= {'n': len(set(groups.tolist())), 'seeds': len(values)}
  if not known.any():
    return result
  members = intervals.grouped_indices(len(groups), groups)
  by_patient = [
    np.stack([part[:, known][:, rows].mean(1) for rows in members], 1) for part in parts
  ]
  rate = lambda means: means[0] / means[1] if len(means) > 1 else means[0]
  result['value'] = float(rate([part.mean() for part in by_patient]))
  if len(members) > 1 and num_resamples:
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(num_resamples):
      rows = rng.integers(0, len(values), len(values))
      columns = rng.integers(0, len(members), len(members))
      draws.append(rate([part[rows][:, columns].mean() for part in by_patient]))
    low, high = np.quantile(draws, [0.025, 0.975])
    result |= {'low': float(low), 'high': float(high)}
  return result


def of_arrays(volumes: Array, classes: Array, attributes: Array) -> Pairs:
  """`Pairs` of volumes (n,d,h,w,1), class indices (n,d,h,w) and attributes (n,k)."""
  take = lambda rows: (volumes[rows], classes[rows].astype(np.int32))
  return Pairs(len(volumes), take, np.asarray(attributes))
