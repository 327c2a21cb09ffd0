"""Label values of data sets -> common ones: (d,h,w) -> (d,h,w) uint8.

The common values of a heart are those of the phantom; data sets number the same three
parts differently. A layout states its mapping in the source of each scan, and
`translate` applies it when the labels are read.
"""

from __future__ import annotations

from collections.abc import Sequence

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
