"""Classifier two-sample test: can a network tell real from synthetic volumes?

A small network is trained to tell half of the real from half of the synthetic volumes,
and its area under the ROC curve (AUC) is measured on the other halves. 0.5: it cannot
tell them apart; 1: it always can. Unlike a distance between fixed features, the test
looks for whatever differs. It is repeated with several seeds, which choose the halves,
the initial parameters and the batches. [LopezPaz17]

Volumes keep their intensities: all are scaled by the same two numbers, and the network
has no normalisation layer, so a difference of contrast or brightness is seen.

[LopezPaz17] Lopez-Paz, Oquab, Revisiting classifier two-sample tests, ICLR 2017.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import ndimage

from ldm_jax import prng
from ldm_jax.evaluation import intervals
from ldm_jax.evaluation.memorisation import area_under_curve
from ldm_jax.training import encoding, one_off
from ldm_jax.types import Array, Config

# Fewer patients (or samples) leave one to train on and one to test on, or none.
MIN_GROUPS = 4
# An interval from 0.5 or below to beyond this excludes neither that the classifier
# cannot tell nor that it mostly can.
PLAIN = 0.75
# Volumes of each side that the test is made with, at most: a random part of more.
MOST = 2048
# Voxels by which a training volume is moved in-plane, at most.
SHIFT = 2
SETTINGS = ('steps', 'seeds', 'batch_size', 'learning_rate', 'channels')


class Classifier(nn.Module):
  """Volumes (b,d,h,w,c) -> logits (b,), positive for synthetic ones.

  Convolutions within slices, one mix of neighbouring slices, and means and maxima of
  features over all positions, which are standardised by constants: mean and deviation
  over the volumes that the network was initialised with. Blocks of 2 x 2 voxels (2 x 2
  x 2 of stacks with `DEEP` slices or more) are the channels of the first layer: nothing
  is lost.

  Attributes:
    channels: of the two levels.
  """

  channels: tuple[int, int] = (16, 32)
  DEEP = 16

  @nn.compact
  def __call__(self, x: Array) -> jax.Array:
    x = _folded(x, (2 if x.shape[1] >= self.DEEP else 1, 2, 2))
    first, second = self.channels
    x = fine = nn.relu(_in_plane(nn.Conv(first, (3, 3)), x))
    x = nn.relu(_in_plane(nn.Conv(second, (3, 3), strides=(2, 2)), x))
    around = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    x = jnp.concatenate([around[:, :-2], x, around[:, 2:]], -1)
    x = nn.relu(nn.Dense(second)(x))
    x = nn.relu(_in_plane(nn.Conv(second, (3, 3), strides=(2, 2)), x))
    axes = (1, 2, 3)
    pooled = jnp.concatenate([fine.mean(axes), x.mean(axes), x.max(axes)], -1)
    centre = self.param('centre', lambda key: pooled.mean(0))
    spread = self.param('spread', lambda key: pooled.std(0) + 1e-6)
    pooled = (pooled - jax.lax.stop_gradient(centre)) / jax.lax.stop_gradient(spread)
    return nn.Dense(1)(pooled)[:, 0]


def compare(
  real: Array,
  synthetic: Array,
  patients: Array,
  section: Config,
  num_resamples: int = 200,
  seed: int = 0,
  sources: Array | None = None,
) -> dict[str, Any]:
  """The test of real against synthetic, and of one half of the real against the other.

  Args:
    real, synthetic: volumes (n,d,h,w,1) and (m,d,h,w,1).
    patients: (n,) patient of each real volume.
    section: config.evaluate.two_sample.
    num_resamples: of the bootstrap.
    seed: of everything random.
    sources: (m,) patient of each synthetic volume; None: each its own.

  Returns:
    `auc(real, synthetic)`, and under `real_halves` the same of two random halves of the
    real patients: what a perfect generator would have with half as many volumes.
  """
  settings = {name: section[name] for name in SETTINGS}
  settings |= {'channels': tuple(section.channels), 'num_resamples': num_resamples}
  rng = np.random.default_rng(seed)
  found = auc(real, synthetic, rng, patients=patients, sources=sources, **settings)
  found['real_halves'] = auc_of_halves(real, rng, patients=patients, **settings)
  return found


def auc(
  real: Array,
  synthetic: Array,
  rng: np.random.Generator,
  *,
  patients: Array | None = None,
  sources: Array | None = None,
  steps: int = 100,
  seeds: int = 3,
  batch_size: int = 16,
  learning_rate: float = 3e-3,
  channels: tuple[int, int] = (16, 32),
  num_resamples: int = 200,
) -> dict[str, Any]:
  """AUC of a classifier of real and synthetic volumes on those it was not trained on.

  Args:
    real, synthetic: volumes (n,d,h,w,1) and (m,d,h,w,1) of one grid, about [0, 1].
    rng: of the halves, initial parameters, batches and resamples.
    patients: (n,) patient of each real volume; a patient is either trained on or tested
      on, and the bootstrap draws patients. None: each volume its own.
    sources: (m,) likewise of the synthetic volumes.
    steps, batch_size, learning_rate, channels: of the classifier's training.
    seeds: how many classifiers are trained, each on halves of its own.
    num_resamples: of the bootstrap.

  Returns:
    dict auc (mean over the seeds), auc_low, auc_high, interval [low, high], per_seed,
    num_real, num_synthetic (volumes), num_patients, seeds, and says_nothing: why the
    figure decides nothing, or None. The interval is the wider at either end of a
    bootstrap over patients and samples, and of Newcombe's for as many as one seed tests
    on; the bootstrap alone has no width where all are told apart. auc is None for fewer
    than four patients or samples.

  Raises:
    ValueError: volumes of different or unusable shapes, or with non-finite values.
  """
  real, synthetic = _checked(real, synthetic)
  members = [
    intervals.grouped_indices(len(real), patients),
    intervals.grouped_indices(len(synthetic), sources),
  ]
  figure = _sizes(real, synthetic, members, seeds)
  if min(map(len, members)) < MIN_GROUPS:
    return {**figure, 'says_nothing': _too_few(members)}
  volumes = np.concatenate([real, synthetic])
  members[1] = [rows + len(real) for rows in members[1]]
  settings = channels, learning_rate, steps
  tests = [
    _scores_of_held_out(volumes, members, rng, settings, batch_size)
    for _ in range(seeds)
  ]
  return figure | _summary(tests, members, rng, num_resamples)


def auc_of_halves(
  real: Array,
  rng: np.random.Generator,
  *,
  patients: Array | None = None,
  **settings: Any,
) -> dict[str, Any]:
  """`auc` between two random halves of the real patients: near 0.5 by construction.

  Args and result as of `auc`; num_real counts the first half, num_synthetic the second.
  """
  members = intervals.grouped_indices(len(real), patients)
  order = rng.permutation(len(members))
  half = len(members) // 2
  parts = [order[:half], order[half : 2 * half]]
  rows = [_rows(members, part) for part in parts]
  names = [
    np.concatenate([np.full(len(members[g]), g) for g in part] or [np.zeros(0, int)])
    for part in parts
  ]
  if half < MIN_GROUPS:
    pair = [[members[g] for g in part] for part in parts]
    figure = _sizes(rows[0], rows[1], pair, settings.get('seeds', 3))
    return {**figure, 'says_nothing': _too_few(pair)}
  first, second = (np.asarray(real)[chosen] for chosen in rows)
  return auc(first, second, rng, patients=names[0], sources=names[1], **settings)


def _sizes(real, synthetic, members, seeds):
  return {
    'auc': None,
    'auc_low': None,
    'auc_high': None,
    'interval': [None, None],
    'per_seed': [],
    'num_real': len(real),
    'num_synthetic': len(synthetic),
    'num_patients': len(members[0]),
    'seeds': seeds,
  }


def _too_few(members):
  return (
    f'{len(members[0])} patients and {len(members[1])} samples are too few to train on '
    f'half of them and test on the rest; at least {MIN_GROUPS} of each are needed.'
  )


def _scores_of_held_out(volumes, members, rng, settings, batch_size):
  """Trains one classifier: -> (n + m,) logits, NaN for volumes it was trained on."""
  init, step, logits = _functions(*settings)
  trained, held_out = [], []
  for groups in members:
    order, half = rng.permutation(len(groups)), len(groups) // 2
    trained.append(_rows(groups, order[:half]))
    held_out.append(_rows(groups, order[half:]))
  standard = _standardisation(volumes[np.concatenate(trained)])
  first = rng.choice(np.concatenate(trained), 2 * batch_size)
  state = init(prng.key(int(rng.integers(2**31))), standard(volumes[first]))
  half_batch = max(1, batch_size // 2)
  target = np.repeat(np.float32([0, 1]), half_batch)
  streams = [_endless(rows, rng) for rows in trained]
  for _ in range(settings[2]):
    rows = [next(stream) for stream in streams for _ in range(half_batch)]
    state = step(state, standard(_shifted(volumes[rows], rng)), target)
  tested = np.concatenate(held_out)
  found = np.full(len(volumes), np.nan)
  found[tested] = encoding.apply_in_batches(
    lambda x: logits(state[0], standard(x)), volumes[tested], batch_size
  )
  return found


def _summary(tests, members, rng, num_resamples):
  """Mean AUC over the classifiers' logits, and its interval."""
  values = [_weighted_auc(scores, members) for scores in tests]
  value = float(np.mean(values))
  drawn = []
  for _ in range(num_resamples):
    chosen = [
      [groups[g] for g in rng.integers(0, len(groups), len(groups))]
      for groups in members
    ]
    found = [_weighted_auc(scores, chosen) for scores in tests]
    if np.isfinite(found).any():
      drawn.append(np.nanmean(found))
  counts = [len(groups) - len(groups) // 2 for groups in members]
  low, high = intervals.auc_interval(value, *counts)
  if drawn:
    ends = np.quantile(drawn, [0.025, 0.975])
    low, high = min(low, float(ends[0])), max(high, float(ends[1]))
  return {
    'auc': value,
    'auc_low': low,
    'auc_high': high,
    'interval': [low, high],
    'per_seed': values,
    'says_nothing': _says_nothing(low, high, counts),
  }


def _says_nothing(low, high, counts):
  if low > 0.5 or high <= PLAIN:
    return None
  return (
    f'Tested on {counts[0]} patients and {counts[1]} samples at a time, the interval '
    f'is {low:.2f} to {high:.2f} (width {high - low:.2f}): it excludes neither 0.5, '
    f'cannot tell, nor {PLAIN}, mostly can. More patients and samples are needed.'
  )


def _weighted_auc(scores, members):
  """AUC of the tested volumes of the listed groups, NaN where a side has none."""
  real, synthetic = (scores[np.concatenate(groups)] for groups in members)
  real, synthetic = real[~np.isnan(real)], synthetic[~np.isnan(synthetic)]
  if not len(real) or not len(synthetic):
    return np.nan
  return area_under_curve(synthetic, real)


@functools.lru_cache(maxsize=8)
def _functions(channels, learning_rate, steps):
  """Compiled (init, step, logits), shared by all seeds and pairs of one shape."""
  network = Classifier(channels)
  optimizer = optax.adamw(
    optax.cosine_decay_schedule(learning_rate, steps), weight_decay=1e-3
  )

  def init(key, x):
    params = network.init(key, x)
    return params, optimizer.init(params)

  def loss(params, x, target):
    logits = network.apply(params, x)
    return optax.sigmoid_binary_cross_entropy(logits, target).mean()

  def step(state, x, target):
    params, moments = state
    updates, moments = optimizer.update(
      jax.grad(loss)(params, x, target), moments, params
    )
    return optax.apply_updates(params, updates), moments

  return one_off.jit(init), jax.jit(step, donate_argnums=0), jax.jit(network.apply)


def _in_plane(layer, x):
  """Applies a 2D layer to each slice of (b,d,h,w,c)."""
  y = layer(x.reshape(-1, *x.shape[2:]))
  return y.reshape(*x.shape[:2], *y.shape[1:])


def _folded(x, block):
  """(b,d,h,w,c) -> (b,d/p,h/q,w/r,pqrc): the voxels of each block as channels."""
  extents = zip(x.shape[1:4], block, strict=True)
  pads = [(0, -extent % length) for extent, length in extents]
  x = jnp.pad(x, [(0, 0), *pads, (0, 0)], mode='edge')
  d, h, w = (extent // n for extent, n in zip(x.shape[1:4], block, strict=True))
  p, q, r = block
  x = x.reshape(-1, d, p, h, q, w, r, x.shape[-1]).transpose(0, 1, 3, 5, 2, 4, 6, 7)
  return x.reshape(-1, d, h, w, p * q * r * x.shape[-1])


def _standardisation(volumes):
  """x (b,d,h,w,1) -> itself and its fine detail, (b,d,h,w,2), on equal terms.

  The detail is what lies above the mean of 3 x 3 voxels; where it is faint, the network
  would need many steps to find it. Both are scaled by the standard deviation over all
  the volumes given, so each keeps its own contrast.
  """
  centre, scale = volumes.mean(), max(float(volumes.std()), 1e-6)
  fine = lambda x: x - ndimage.uniform_filter(x, (0, 0, 3, 3, 0), mode='nearest')
  fine_scale = max(float(fine(volumes).std()), 1e-6)

  def standard(x):
    parts = (x - centre) / scale, fine(x) / fine_scale
    return np.concatenate(parts, -1, dtype=np.float32)

  return standard


def _shifted(x, rng):
  """Moves each volume (b,d,h,w,1) in-plane by up to SHIFT voxels, edges repeated."""
  pads = [(0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)]
  padded = np.pad(x, pads, mode='edge')
  moves = rng.integers(0, 2 * SHIFT + 1, (len(x), 2))
  height, width = x.shape[2:4]
  return np.stack(
    [
      volume[:, top : top + height, left : left + width]
      for volume, (top, left) in zip(padded, moves, strict=True)
    ]
  )


def _endless(rows, rng):
  """Yields the rows in random order, again and again."""
  while True:
    yield from rng.permutation(rows)


def _rows(members: Sequence[np.ndarray], chosen: Array) -> np.ndarray:
  """Indices of all volumes of the chosen groups."""
  return np.concatenate([members[g] for g in chosen] or [np.zeros(0, int)])


def _checked(real, synthetic):
  real, synthetic = (np.asarray(x, np.float32) for x in (real, synthetic))
  if real.ndim != 5 or real.shape[1:] != synthetic.shape[1:] or real.shape[-1] != 1:
    raise ValueError(
      f'Expected volumes (n,d,h,w,1) and (m,d,h,w,1) of one grid, got {real.shape} and '
      f'{synthetic.shape}; bring both to one grid, or set '
      'evaluate.two_sample.enabled=False.'
    )
  for name, x in (('real', real), ('synthetic', synthetic)):
    if not np.isfinite(x).all():
      raise ValueError(
        f'Expected finite {name} volumes, got {int((~np.isfinite(x)).sum())} '
        'non-finite voxels; check what made them.'
      )
  return real, synthetic
