"""Scans with their label maps as channels: (m,d,h,w,1 + k), and what they need.

Channel 0 holds the intensities, the others the classes of the label map, one-hot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.data.cohorts import label_values, roles
from ldm_jax.data.store.split import Split

BATCH = 16  # label maps in memory at once


def inputs(split: Split, indices: np.ndarray, values: Sequence[int]) -> np.ndarray:
  """Volumes (m,d,h,w,1) of a split, or with their label maps (m,d,h,w,1 + k).

  Args:
    split: prepared cohort.
    indices: (m,) of its entries.
    values: the k label values that have a channel; () for volumes alone.

  Raises:
    ValueError: labels are asked for and a scan has none, or a file is damaged.
  """
  volumes = split.volumes(indices)
  if not len(values):
    return volumes
  classes = label_values.classes_of(labels(split, indices), values)
  return np.concatenate([volumes, label_values.one_hot(classes, len(values))], -1)


def frequencies(split: Split, values: Sequence[int]) -> np.ndarray:
  """Share (k,) of the voxels of a public split that each class has."""
  counts = np.zeros(len(values))
  for start in range(0, len(split), BATCH):
    rows = np.arange(start, min(start + BATCH, len(split)))
    classes = label_values.classes_of(labels(split, rows), values)
    counts += np.bincount(classes.ravel(), minlength=len(values))
  return counts / counts.sum()


def shares(classes: np.ndarray, num: int, grid: Sequence[int]) -> np.ndarray:
  """Share of each class in the blocks of a coarser grid: (m,d,h,w) -> (m,*grid,num).

  Args:
    classes: indices.
    num: of classes.
    grid: its sizes divide those of the maps.
  """
  blocks = [
    part for n, g in zip(classes.shape[1:], grid, strict=True) for part in (g, n // g)
  ]
  parts = label_values.one_hot(classes, num).reshape(len(classes), *blocks, num)
  return parts.mean((2, 4, 6))


def check(split: Split) -> None:
  """Raises ValueError where a scan of a cohort has no labels.

  Of a confidential cohort the message names no scan.
  """
  if split.is_labelled:
    return
  one = [np.array([i]) for i in range(len(split))]
  lacking = [split.ids[i] for i, row in enumerate(one) if split.labels(row) is None]
  message = (
    f"data.labels is 'joint', but {len(lacking)} of the {len(split)} scans of "
    f'data.{split.name} have no labels; expected a label map for each. Name the label '
    f'files (data.{split.name}.options.label), leave those scans out, or set '
    "--config.data.labels='' for scans alone."
  )
  if split.name in roles.CONFIDENTIAL:
    lines = [f'labels: {name} has none' for name in lacking]
    raise roles.ConfidentialError(message, {split.name: lines})
  raise ValueError(f'{message} The first without labels: {", ".join(lacking[:5])}.')


def labels(split: Split, indices: np.ndarray) -> np.ndarray:
  """Label maps (m,d,h,w) uint8 of entries.

  Raises:
    ValueError: a scan has none, or a file is damaged.
  """
  found = split.labels(indices)
  if found is None:
    check(split)
    raise ValueError(
      f'The labels of data.{split.name} cannot be read; run --stages=prepare again.'
    )
  return found
