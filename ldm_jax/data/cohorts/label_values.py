"""Label values of data sets -> common ones, classes and channels.

The common values of a heart are those of the phantom; data sets number the same three
parts differently. A layout states its mapping in the source of each scan, and
`translate` applies it when the labels are read. A class is the index of a value in
`config.evaluate.labels`; a value that is not listed there is class 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

HEART = {'background': 0, 'lv': 1, 'myocardium': 2, 'rv': 3}
# Decathlon, Task04: already the values in its files.
HIPPOCAMPUS = {'background': 0, 'anterior': 1, 'posterior': 2}

# (value in the files, common value).
ACDC = ((1, HEART['rv']), (2, HEART['myocardium']), (3, HEART['lv']))
# M&Ms and M&Ms-2.
MNMS = ((1, HEART['lv']), (2, HEART['myocardium']), (3, HEART['rv']))


def translate(
  array: np.ndarray, codes: Sequence[tuple[int, int]], where: str
) -> np.ndarray:
  """Common values of labels: uint8 of any shape -> uint8 of the same.

  Args:
    array: values in the files; 0 is background everywhere.
    codes: (value in the files, common value); () leaves the values alone.
    where: names the file in the error.

  Raises:
    ValueError: a value that is not in `codes`.
  """
  if not codes:
    return array
  table = np.full(256, -1)
  table[0] = 0
  for own, common in codes:
    table[own] = common
  found = table[array]
  if (found < 0).any():
    unknown = sorted(set(array[found < 0].ravel().tolist()))
    raise ValueError(
      f'{where} holds the labels {unknown}, which this layout does not know; expected '
      f'{[0, *(own for own, _ in codes)]}. Remove or replace the file, or read it with '
      'configs/folder.py, which keeps all values.'
    )
  return found.astype(np.uint8)


def classes_of(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
  """Label values of a data set -> class indices int32; a value not listed is 0."""
  table = np.zeros(256, np.int32)
  for index, value in enumerate(values):
    table[int(value)] = index
  return table[labels]


def one_hot(classes: np.ndarray, num: int) -> np.ndarray:
  """Class indices of any shape -> float32 (...,num), 1 in the channel of the class."""
  return (classes[..., None] == np.arange(num)).astype(np.float32)


def values_of(classes: np.ndarray, values: Sequence[int]) -> np.ndarray:
  """Class indices -> label values uint8: the inverse of `classes_of`."""
  return np.asarray(values, np.uint8)[np.asarray(classes)]


def named(values: Sequence[int], names: Sequence[str]) -> dict[int, str]:
  """{label value: what it means}; without names 'background', 'label 1', ...

  Args:
    values: of `config.evaluate.labels`.
    names: one for each, or none.
  """
  usual = ['background', *(f'label {value}' for value in values[1:])]
  return dict(zip(map(int, values), names or usual, strict=True))


def listed(names: Mapping[int, str]) -> list[dict[str, Any]]:
  """{label value: what it means} as the content of a JSON file."""
  return [{'value': value, 'name': name} for value, name in names.items()]
