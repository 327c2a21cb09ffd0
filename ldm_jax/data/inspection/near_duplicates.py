"""Finds the same scan in other bytes: (n,k) signatures and the pairs that correlate.

A signature is the scan averaged over a grid of 8 x 16 x 16 boxes of its own field of
view; the mean of all signatures is subtracted before two are correlated. On real scans
(72 hippocampi, 33 hearts, 6 heads) different patients reach at most 0.66. The same scan
reaches at least 0.87 after a gamma of 0.7, 5 % noise, resampling to 0.8 or without its
first slice, 0.79 after a bias of 20 %, and 0.75 after a shift by one voxel of 35; it is
not found after a crop on one side. Where all scans are more alike than that (phantoms,
one atlas), a pair must stand out from the usual correlation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

GRID = (8, 16, 16)
THRESHOLD, LARGEST_THRESHOLD = 0.75, 0.97
DEVIATIONS = 4  # robust, above the usual correlation with the nearest other patient
# Of fewer scans no mean is subtracted; heads of two people then reach 0.974.
FEW, THRESHOLD_FEW = 6, 0.985
BLOCK = 1024  # rows compared at once


def signature(array: np.ndarray) -> np.ndarray:
  """(d,h,w) -> (k,) float32 of mean 0 and norm 1."""
  boxes = np.asarray(array, np.float32)
  for axis, count in enumerate(GRID):
    boxes = _averages(boxes, axis, count)
  flat = boxes.ravel() - boxes.mean()
  return (flat / max(np.linalg.norm(flat), 1e-12)).astype(np.float32)


def near_pairs(
  signatures: np.ndarray | Sequence[np.ndarray],
  patients: Sequence[str],
  skip: Sequence[str] = (),
) -> Iterator[tuple[int, int, float]]:
  """Pairs (i, j, correlation) of different patients whose scans are too alike.

  Args:
    signatures: (n,k).
    patients: (n,); pairs of scans of one patient are left out.
    skip: (n,) hashes of the files; pairs of equal ones are left out.
  """
  rows = np.asarray(signatures, np.float32)
  least, owners = THRESHOLD_FEW, np.unique(patients, return_inverse=True)[1]
  if len(rows) >= FEW:
    least = THRESHOLD
    rows = rows - rows.mean(0)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
  nearest, pairs = [], []
  for start in range(0, len(rows), BLOCK):
    found = rows[start : start + BLOCK] @ rows.T
    found[owners[start : start + BLOCK, None] == owners] = -1
    nearest.append(found.max(1))
    pairs += [(i + start, j, found[i, j]) for i, j in np.argwhere(found >= least)]
  if len(rows) >= FEW:
    least = _standing_out(np.concatenate(nearest))
  for i, j, correlation in pairs:
    if i < j and correlation >= least and not (skip and skip[i] == skip[j]):
      yield int(i), int(j), float(correlation)


def _standing_out(nearest: np.ndarray) -> float:
  """The correlation that hardly any scan reaches with its nearest other patient."""
  usual = np.median(nearest)
  spread = 1.4826 * np.median(np.abs(nearest - usual))
  return float(np.clip(usual + DEVIATIONS * spread, THRESHOLD, LARGEST_THRESHOLD))


def _averages(array: np.ndarray, axis: int, count: int) -> np.ndarray:
  """Means over `count` equal stretches of an axis, whose ends may cut a voxel."""
  length = array.shape[axis]
  edges = np.linspace(0, length, count + 1)
  whole = np.minimum(np.floor(edges).astype(int), length - 1)
  array = np.moveaxis(array, axis, 0)
  sums = np.concatenate([np.zeros_like(array[:1]), np.cumsum(array, 0, np.float64)])
  part = (edges - whole).reshape(-1, *[1] * (array.ndim - 1))
  at_edges = sums[whole] + part * (sums[whole + 1] - sums[whole])
  return np.moveaxis(np.diff(at_edges, axis=0) / (length / count), 0, axis)
