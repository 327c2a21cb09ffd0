"""Label maps as columns of a condition, by a config: (n,d,h,w) -> (n,m).

The columns are those of `models.conditions.label_mask`, on the grid of the latent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ldm_jax.data.cohorts import label_values
from ldm_jax.data.store import labelled
from ldm_jax.models.conditions import label_mask
from ldm_jax.training import networks
from ldm_jax.types import Config

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split


def columns(config: Config, maps: np.ndarray) -> np.ndarray:
  """Class indices (n,d,h,w) -> columns (n,m) for the denoiser of a config."""
  grid, num = networks.latent_shape(config)[:-1], len(networks.mask_values(config))
  return label_mask.columns(labelled.shares(maps, num, grid))


def of_split(config: Config, split: Split) -> np.ndarray:
  """Columns (n,m) of all scans of a prepared cohort.

  Raises:
    ValueError: a scan has no labels.
  """
  values, maps = networks.mask_values(config), []
  for start in range(0, len(split), labelled.BATCH):
    rows = np.arange(start, min(start + labelled.BATCH, len(split)))
    maps.append(label_values.classes_of(labelled.labels(split, rows), values))
  return np.concatenate([columns(config, part) for part in maps])
