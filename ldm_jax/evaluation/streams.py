"""Volumes that are read when they are asked for, and applied to block by block.

A cohort of 50,000 patients or as many samples does not fit into memory. Both are used
like arrays (n,d,h,w,1): `len`, and indices or slices of the first axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ldm_jax.types import Array

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split

# Volumes in memory at a time; most batch sizes divide it, so that blocks change none.
BLOCK = 240


class Stored:
  """The volumes (n,d,h,w,1) of a split; those that are indexed are read."""

  def __init__(self, split: Split):
    self._split = split

  def __len__(self) -> int:
    return len(self._split)

  def __getitem__(self, rows: slice | Array) -> np.ndarray:
    return self._split.volumes(np.arange(len(self))[rows])


class OneChannel:
  """The first channel (n,d,h,w) of volumes (n,d,h,w,c) that are read when indexed."""

  def __init__(self, volumes: Array | Stored):
    self._volumes = volumes

  def __len__(self) -> int:
    return len(self._volumes)

  def __getitem__(self, rows: slice | Array) -> np.ndarray:
    return np.asarray(self._volumes[rows])[..., 0]


def in_blocks(
  function: Callable[[np.ndarray], np.ndarray], volumes: Array | Stored
) -> np.ndarray:
  """function(volumes (b,...)) -> (b,...) over blocks, one after the other: (n,...)."""
  starts = range(0, len(volumes), BLOCK)
  blocks = (np.asarray(volumes[start : start + BLOCK]) for start in starts)
  return np.concatenate([function(block) for block in blocks])


def some(
  volumes: Array | Stored, most: int, seed: int, groups: Array | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Volumes in memory: all, or `most` of them chosen at random.

  Args:
    volumes: (n,...).
    most: number that may be in memory.
    seed: of the choice.
    groups: (n,) patient of each; None: each volume its own.

  Returns:
    (volumes (m,...), their groups (m,)).
  """
  groups = np.arange(len(volumes)) if groups is None else np.asarray(groups)
  rows = np.arange(len(volumes))
  if len(volumes) > most:
    rows = np.sort(np.random.default_rng(seed).permutation(len(volumes))[:most])
  return np.asarray(volumes[rows]), groups[rows]
