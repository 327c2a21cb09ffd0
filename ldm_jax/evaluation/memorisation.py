"""Test for copies of the training set, by nearest neighbours in features (n, f).

Samples of a generator that learned the population are as near to training patients as
to held-out ones; samples of one that copied are nearer to training patients. All
figures use the training set, so where that is private they are internal: not covered by
the privacy guarantee.

[Meehan20] Meehan et al., A three-sample hypothesis test, AISTATS 2020.
[Mann47] Mann, Whitney, Ann. Math. Statist. 18, 1947 (area under the ROC curve).
"""

from typing import Any

import numpy as np

from ldm_jax.evaluation import intervals
from ldm_jax.types import Array


def memorisation(
  train: Array,
  held_out: Array,
  synthetic: Array,
  groups_train: Array | None = None,
  groups_held_out: Array | None = None,
  quantile: float = 0.05,
  max_flagged: int = 20,
) -> dict[str, Any]:
  """Three-sample test of copying: (n, f), (m, f), (s, f) -> dict. [Meehan20]

  Args:
    train: rows of the patients that the generator was trained on.
    held_out: rows of other patients of the same population.
    synthetic: rows of its samples.
    groups_train: (n,) patients; each counts once, by the nearest of its volumes.
    groups_held_out: (m,) likewise.
    quantile: of the held-out-to-train distances, below which a sample is flagged.
    max_flagged: longest list of flagged pairs.

  Returns:
    dict
      threshold: the quantile of the distances held-out -> nearest train.
      fraction, fraction_low, fraction_high: samples nearer to train than that
        (Wilson); expected: the same fraction when nothing is copied.
      auc, auc_low, auc_high: of telling train from held-out patients by their
        distance to the nearest sample; 0.5 without memorisation, 1 for copies.
      distances: medians synthetic_train, synthetic_held_out, held_out_train.
      flagged: list of {synthetic, train, distance, ratio}, nearest first; indices
        are rows, ratio is distance / threshold. num_flagged: all of them.
      n_train, n_held_out, n_synthetic: rows; num_patients_*: groups.

  Raises:
    ValueError: for an empty or non-finite set or unequal widths.
  """
  train, held_out, synthetic = _checked(
    train=train, held_out=held_out, synthetic=synthetic
  )
  to_train, match = nearest(synthetic, train)
  to_held_out, _ = nearest(synthetic, held_out)
  reference, _ = nearest(held_out, train)
  reference = _per_group(reference, groups_held_out)
  threshold = float(np.quantile(reference, quantile))
  flagged = np.flatnonzero(to_train <= threshold)
  low, high = intervals.proportion_interval(len(flagged), len(synthetic))
  members = _per_group(nearest(train, synthetic)[0], groups_train)
  others = _per_group(nearest(held_out, synthetic)[0], groups_held_out)
  auc = area_under_curve(-members, -others)
  auc_low, auc_high = intervals.auc_interval(auc, len(members), len(others))
  order = flagged[np.argsort(to_train[flagged], kind='stable')][:max_flagged]
  return {
    'threshold': threshold,
    'fraction': len(flagged) / len(synthetic),
    'fraction_low': low,
    'fraction_high': high,
    'expected': quantile,
    'auc': auc,
    'auc_low': auc_low,
    'auc_high': auc_high,
    'distances': {
      'synthetic_train': float(np.median(to_train)),
      'synthetic_held_out': float(np.median(to_held_out)),
      'held_out_train': float(np.median(reference)),
    },
    'flagged': [
      {
        'synthetic': int(i),
        'train': int(match[i]),
        'distance': float(to_train[i]),
        'ratio': float(to_train[i] / threshold) if threshold > 0 else 0.0,
      }
      for i in order
    ],
    'num_flagged': len(flagged),
    'n_train': len(train),
    'n_held_out': len(held_out),
    'n_synthetic': len(synthetic),
    'num_patients_train': len(members),
    'num_patients_held_out': len(others),
  }


def nearest(
  queries: Array, references: Array, chunk: int = 256
) -> tuple[np.ndarray, np.ndarray]:
  """Euclidean nearest neighbours: (n, f), (m, f) -> distances (n,), indices (n,)."""
  queries = np.asarray(queries, np.float64).reshape(len(queries), -1)
  references = np.asarray(references, np.float64).reshape(len(references), -1)
  centre = references.mean(axis=0)
  queries, references = queries - centre, references - centre
  lengths = (references**2).sum(axis=1)
  indices = np.empty(len(queries), int)
  for start in range(0, len(queries), chunk):
    part = slice(start, start + chunk)
    indices[part] = (lengths - 2 * queries[part] @ references.T).argmin(axis=1)
  # The distance is computed again from the difference, because the expanded square
  # loses half of the digits for small distances, which copies have.
  distances = np.array(
    [np.linalg.norm(q - references[i]) for q, i in zip(queries, indices, strict=True)]
  )
  return distances, indices


def area_under_curve(positive: Array, negative: Array) -> float:
  """P(positive > negative) + P(equal) / 2: (n,), (m,) -> float. [Mann47]"""
  negative = np.sort(np.asarray(negative))
  below = np.searchsorted(negative, positive, side='left')
  up_to = np.searchsorted(negative, positive, side='right')
  return float((below + up_to).mean() / (2 * len(negative)))


def _per_group(distances, groups):
  """Smallest distance of each group: (n,) -> (number of groups,)."""
  members = intervals.grouped_indices(len(distances), groups)
  return np.array([distances[m].min() for m in members])


def _checked(**sets):
  arrays = {}
  for name, rows in sets.items():
    array = np.asarray(rows, np.float64)
    array = array.reshape(len(array), -1) if array.ndim > 2 else array
    if array.ndim != 2 or not len(array) or not np.isfinite(array).all():
      raise ValueError(
        f'Expected at least one row of finite features for {name}, got the shape '
        f'{np.shape(rows)} or non-finite values; check the volumes it comes from.'
      )
    arrays[name] = array
  widths = {name: array.shape[1] for name, array in arrays.items()}
  if len(set(widths.values())) != 1:
    raise ValueError(
      f'Expected rows of one width, got {widths}; compute all sets with the same '
      'feature network.'
    )
  return arrays.values()
