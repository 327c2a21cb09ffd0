"""Requested label maps: for a model that is conditioned by one -> (n,d,h,w) classes.

They come from public patients or from files of the user, never from other cohorts. A
map of a real patient shows that patient's anatomy, as the public scans do.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from ldm_jax.data.cohorts import label_values
from ldm_jax.data.readers import volume
from ldm_jax.data.store import labelled
from ldm_jax.synthesis import requests
from ldm_jax.training import networks
from ldm_jax.types import Config, Shape

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split

# Files of a folder that are taken, the first pattern that finds any.
PATTERNS = ('*_seg.nii.gz', '*.nii.gz', '*.nii')


def check(config: Config) -> None:
  """Refuses files of label maps that are not there, before anything is trained.

  Raises:
    ValueError: `sample.masks` names no file.
  """
  if networks.mask_values(config) and config.sample.masks not in ('public', 'none'):
    paths(config.sample.masks)


def draw(config: Config, public: Split | None, num: int) -> np.ndarray | None:
  """Class indices (num,d,h,w) of `sample.masks`, or None where samples get no map.

  With `sample.requests` 'public', a map and the attributes are of the same patient.

  Args:
    config: of the run.
    public: prepared public cohort, or None.
    num: of requests.

  Raises:
    ValueError: there is no public cohort, or a file that cannot be used.
  """
  values, name = networks.mask_values(config), config.sample.masks
  if not values or name == 'none':
    return None
  if name == 'public':
    if public is None:
      raise ValueError(
        "sample.masks is 'public', but data.public is empty. Name a file or folder of "
        'label maps, or draw without: --config.sample.masks=none.'
      )
    rows = requests.public_rows(config.seed, len(public), num)
    return label_values.classes_of(labelled.labels(public, rows), values)
  shape = tuple(config.data.preprocess.shape)
  found = [read(path, values, shape) for path in paths(name)[:num]]
  return np.stack([found[i % len(found)] for i in range(num)])


def paths(name: str) -> list[pathlib.Path]:
  """The files of label maps that `sample.masks` names.

  Raises:
    ValueError: there are none.
  """
  place = pathlib.Path(name).expanduser()
  if place.is_file():
    return [place]
  for pattern in PATTERNS if place.is_dir() else ():
    found = sorted(place.glob(pattern))
    if found:
      return found
  raise ValueError(
    f"sample.masks is {name!r}, expected 'public', 'none', a NIfTI file of labels, or "
    'a folder of such files.'
  )


def read(path: pathlib.Path, values: tuple[int, ...], shape: Shape) -> np.ndarray:
  """Class indices (d,h,w) of a file on the model's grid.

  Raises:
    ValueError: another grid, or a value that the model does not know.
  """
  labels = volume.read_label(path).array
  if labels.shape != shape:
    raise ValueError(
      f"{path} has (d,h,w) = {labels.shape}, expected the model's grid {shape}, as the "
      'label maps that the stage sample writes. Resample it.'
    )
  return checked(labels, values, str(path))


def checked(labels: np.ndarray, values: tuple[int, ...], where: str) -> np.ndarray:
  """Label values of any shape -> class indices.

  Raises:
    ValueError: a value that the model does not know.
  """
  unknown = sorted(set(np.unique(labels).tolist()) - set(values))
  if unknown:
    raise ValueError(
      f'{where} holds the labels {unknown}, expected some of {list(values)} '
      '(evaluate.labels of the model). Correct the label map.'
    )
  return label_values.classes_of(np.asarray(labels, np.uint8), values)
