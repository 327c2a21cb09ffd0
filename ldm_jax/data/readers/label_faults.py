"""What is wrong with labels that are no small whole numbers, and why they may be so."""

from __future__ import annotations

import numpy as np

NUM_LISTED = 3


def found(array: np.ndarray, rounded: np.ndarray) -> str:
  """'holds -1 in 12 voxels ...: expected, advice', or '' for labels 0..255.

  Args:
    array: values as they are in the file.
    rounded: the nearest whole numbers, float64.
  """
  finite = np.isfinite(rounded)
  if not finite.all():
    return (
      f'holds {int((~finite).sum())} NaN or infinite voxels; expected labels 0, 1, 2, '
      '... Write them as 0.'
    )
  broken = np.abs(rounded - array) > 1e-3
  if broken.any():
    return (
      f'holds {_listed(array[broken])}, which are not whole numbers; expected labels '
      '0, 1, 2, ... Such values are probabilities, or come from linear resampling: '
      'take a threshold, or resample with the nearest neighbour.'
    )
  if rounded.min() < 0:
    return (
      f'holds {_listed(rounded[rounded < 0])}; expected labels 0..255. Negative '
      'labels often mean "unknown": give them a class of their own, or write 0.'
    )
  if rounded.max() > 255:
    codes = rounded[rounded > 255]
    scheme = 'Codes of an atlas' if codes.min() >= 1000 else 'Values above 255'
    return (
      f'holds {_listed(codes)}; expected labels 0..255. {scheme} (FreeSurfer counts '
      'from 1000 on) must be mapped to classes 1, 2, 3, ... first; where it is the '
      'scan itself, name the labels.'
    )
  return ''


def _listed(values: np.ndarray) -> str:
  """'0.988 in 12 voxels, 0.5 in 3 voxels and 40 other values in 120', by frequency."""
  each, counts = np.unique(values, return_counts=True)
  order = np.argsort(-counts, kind='stable')
  shown = [f'{each[i]:.4g} in {counts[i]} voxels' for i in order[:NUM_LISTED]]
  rest = order[NUM_LISTED:]
  more = f' and {len(rest)} other values in {counts[rest].sum()}' if len(rest) else ''
  return ', '.join(shown) + more
