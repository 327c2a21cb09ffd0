"""Volumes of one patient: what must not change between them, and what only both show.

The volumes of a synthetic patient should be as alike as those of a real one, and sizes
that a patient keeps (muscle of the heart, head) should agree between them as they do
there. An ejection fraction takes two volumes: those of synthetic patients should be
distributed as real ones. All sizes are measured by the same network, and every patient
counts once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.evaluation import (
  control,
  image_similarity,
  intervals,
  measuring_network,
  streams,
)
from ldm_jax.types import Array, Config

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split

SIDES = ('synthetic', 'real')
QUANTILES = (0.025, 0.25, 0.5, 0.75, 0.975)
Rows = tuple[np.ndarray, np.ndarray]


def figures(
  samples: Mapping[str, Array],
  split: Split,
  network: measuring_network.MeasuringNetwork | measuring_network.PooledLatents,
  section: Config,
  schema: Schema,
  spacing_mm: Array,
  marks: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> dict[str, Any]:
  """The entry `within_patient` of metrics.json.

  Args:
    samples: 'volumes' (n,d,h,w,1), 'requests' (n,k), 'patients' (n,) and
      'within_patient', names of the attributes that differ between a patient's volumes.
    split: real patients, of whom those with several volumes are measured.
    network: the measuring network; one that measures no anatomy gives `likeness` alone.
    section: config.evaluate.
    schema: of the requests.
    spacing_mm: (d,h,w) voxel size of the samples.
    marks: what figures of the samples, and of the real patients, have read.

  Returns:
    {'likeness': {'synthetic', 'real': mean SSIM of the first with the last volume},
    'same': {size: {'synthetic', 'real': `control.agreement` of the first with the last
    volume}}, 'ejection': {name: `distribution`}}; without what nobody's volumes show.
  """
  settings, changed = section.within_patient, list(map(str, samples['within_patient']))
  people, resamples = np.asarray(samples['patients']), section.num_bootstrap
  volumes = samples['volumes'], streams.Stored(split)
  codes = np.asarray(samples['requests']), np.asarray(split.attributes)
  spacings = np.asarray(spacing_mm), split.spacing_mm

  def paired(name):
    """[synthetic, real] rows (first (m,), last (m,)) of volumes that differ in it."""
    own, real = (each[:, schema.names.index(name)] for each in codes)
    return pairs(people, own), real_pairs(split, real)

  def measured(entries, name):
    """[synthetic, real] sizes {entry: (first (m,), last (m,))} of pairs of volumes."""
    sides = zip(volumes, paired(name), spacings, strict=True)
    return [_sizes(entries, network, *side) for side in sides]

  found: dict[str, Any] = {'likeness': {}, 'same': {}, 'ejection': {}}
  for side, x, rows, mark in zip(
    SIDES, volumes, paired(changed[0]), marks, strict=True
  ):
    if len(rows[0]):
      mean = intervals.mean_figure(_likeness(x, *rows), None, resamples)
      found['likeness'][side] = {**mean, **mark}
  if not network.measures:
    return {'likeness': found['likeness']}
  kept = measured(settings.same, changed[0]) if settings.same else ()
  for side, sizes, mark in zip(SIDES, kept, marks, strict=False):
    for name, (first, last) in sizes.items():
      if len(first):
        agreement = control.agreement(first, last, resamples)
        found['same'].setdefault(name, {})[side] = {**agreement, **mark}
  for entry in settings.ejection:
    if entry.get('by') in changed:
      name, cavity = entry['name'], {'kind': 'volume', **entry}
      sizes = [each[name] for each in measured((cavity,), entry['by'])]
      # End-systole is the first of the categories.
      synthetic, real = (ejection_fraction(last, first) for first, last in sizes)
      found['ejection'][name] = distribution(synthetic, real, marks, resamples)
  return {name: part for name, part in found.items() if part}


def pairs(patients: Sequence[Hashable] | np.ndarray, codes: Array) -> Rows:
  """Rows (m,) of the volumes with the lowest and the highest value in each patient.

  Args:
    patients: (n,) of each volume.
    codes: (n,) an attribute, encoded; NaN where unknown. Patients with one value make
      no pair.
  """
  codes = np.asarray(codes, np.float64)
  rows: dict[Hashable, list[int]] = {}
  for row in np.flatnonzero(np.isfinite(codes)).tolist():
    rows.setdefault(patients[row], []).append(row)
  found = [
    (own[np.argmin(codes[own])], own[np.argmax(codes[own])])
    for own in map(np.asarray, rows.values())
    if np.ptp(codes[own]) > 0
  ]
  first, last = np.asarray(found, int).reshape(-1, 2).T
  return first, last


def real_pairs(split: Split, codes: Array) -> Rows:
  """`pairs` of real volumes that differ in nothing else, one pair for each patient.

  Phases are paired within a visit; where no visit has two values of the attribute,
  visits are, within a phase.
  """
  for same in (split.visits, split.phases):
    first, last = pairs(list(zip(split.patients, same, strict=True)), codes)
    if len(first):
      owners = np.asarray(split.patients)[first]
      once = np.sort(np.unique(owners, return_index=True)[1])
      return first[once], last[once]
  return first, last


def _likeness(volumes, first, last):
  """SSIM (m,) of pairs of volumes."""
  found = [np.zeros(0)]
  for start in range(0, len(first), streams.BLOCK):
    rows = slice(start, start + streams.BLOCK)
    x, y = (np.asarray(volumes[side[rows]])[..., 0] for side in (first, last))
    found.append(image_similarity.ssim(x, y))
  return np.concatenate(found)


def _sizes(entries, network, volumes, rows, spacing_mm):
  """{name: (m,) sizes in the first, (m,) in the last volumes} of pairs of rows."""
  found = {entry['name']: ([], []) for entry in entries}
  for place, side in enumerate(rows):
    for start in range(0, len(side), streams.BLOCK):
      labels = network.labels(np.asarray(volumes[side[start : start + streams.BLOCK]]))
      sizes = measuring_network.measure(entries, labels, spacing_mm)
      for name, values in sizes.items():
        found[name][place].append(values)
  return {
    name: tuple(np.concatenate([*parts, np.zeros(0)]) for parts in sides)
    for name, sides in found.items()
  }


def ejection_fraction(diastole: Array, systole: Array) -> np.ndarray:
  """Share of a cavity's volume that is ejected, in %: (m,), without empty cavities."""
  diastole, systole = np.asarray(diastole, float), np.asarray(systole, float)
  known = np.isfinite(diastole) & np.isfinite(systole) & (diastole > 0)
  return 100 * (1 - systole[known] / diastole[known])


def distribution(
  synthetic: np.ndarray,
  real: np.ndarray,
  marks: tuple[Mapping[str, Any], Mapping[str, Any]],
  num_resamples: int = 200,
  seed: int = 0,
) -> dict[str, Any]:
  """How values of synthetic patients (m,) are distributed beside those of real (n,).

  Args:
    synthetic, real: one value a patient.
    marks: what figures of each have read.
    num_resamples: of the intervals.
    seed: of the halves.

  Returns:
    'synthetic' and 'real': the mean over patients and 'quantiles' (QUANTILES).
    'distance': the 1-Wasserstein distance between them, in the values' unit;
    'real_halves': the same of halves of the real patients, whose mean is what a perfect
    generator would have with half as many; 'inside': share of synthetic values within
    the central 95 % of the real. Without what takes more patients (4).
  """
  found: dict[str, Any] = {}
  for name, values, mark in zip(SIDES, (synthetic, real), marks, strict=True):
    if len(values):
      mean = intervals.mean_figure(values, None, num_resamples, seed)
      quantiles = [float(value) for value in np.quantile(values, QUANTILES)]
      found[name] = {**mean, 'quantiles': quantiles, **mark}
  if min(len(synthetic), len(real)) < 4:
    return found
  rng, mark = np.random.default_rng(seed), marks[1]
  distance = stats.wasserstein_distance
  halves, apart = list[float](), list[float]()
  members = [[np.array([i]) for i in range(len(x))] for x in (synthetic, real)]
  for _ in range(num_resamples):
    a, b = (intervals.half_sample(rng, each) for each in members)
    halves.append(distance(synthetic[a], real[b]))
    order = rng.permutation(len(real))
    middle = len(real) // 2
    apart.append(distance(real[order[:middle]], real[order[middle : 2 * middle]]))
  value = float(distance(synthetic, real))
  low, high = intervals.half_sampling_interval(value, halves, floor=0.0)
  sizes = {'n_real': len(real), 'n_synthetic': len(synthetic)}
  found['distance'] = {'value': value, 'low': low, 'high': high, **sizes, **mark}
  low, high = map(float, np.quantile(apart, [0.025, 0.975]))
  mean = {'value': float(np.mean(apart)), 'low': low, 'high': high}
  found['real_halves'] = {**mean, 'n_half': len(real) // 2, **mark}
  low, high = map(float, np.quantile(real, [QUANTILES[0], QUANTILES[-1]]))
  inside = int(((synthetic >= low) & (synthetic <= high)).sum())
  low, high = intervals.proportion_interval(inside, len(synthetic))
  share = {'value': inside / len(synthetic), 'low': low, 'high': high}
  found['inside'] = {**share, **sizes, **mark}
  return found
