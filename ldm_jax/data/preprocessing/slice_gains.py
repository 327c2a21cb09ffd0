"""Jumps of intensity from slice to slice: found in (d,h,w), and evened out on request.

Neighbouring slices show nearly the same tissue, so the median of I[s+1] / I[s] over the
voxels that are bright in both is near 1. A file whose slices were scaled one by one (an
8-bit export) breaks that. Only one gain per slice is changed, and it is recorded; a
bias field within slices is left as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Above it a change from slice to slice is called a jump. Scans of one piece stay below
# 1.1 in their bright part; the single exports of Sunnybrook reach 1.1 to 2.
JUMP = 1.2
# Voxels looked at in a slice, and the least that must be bright in both neighbours.
NUM_SAMPLES, MIN_BRIGHT = 1024, 20
# Intensities are signed if so many percent are lower than minus this share of the
# brightest.
SIGNED_PERCENT, SIGNED_SHARE = 2, 0.05


def log_ratios(array: np.ndarray) -> np.ndarray:
  """(d,h,w) -> (d-1,) log of the change of brightness to the next slice.

  It is 0 where neighbours share too little bright tissue to tell.
  """
  step = max(1, int(np.sqrt(array[0].size / NUM_SAMPLES)))
  flat = np.asarray(array[:, ::step, ::step], np.float32).reshape(len(array), -1)
  bright = flat > max(flat.mean(dtype=np.float64), 0)
  logs = np.log(np.where(bright, flat, 1))
  both = bright[1:] & bright[:-1]
  ratios = np.sort(np.where(both, logs[1:] - logs[:-1], np.inf), axis=1)
  count = both.sum(1)
  rows = np.arange(len(ratios))
  middle = (ratios[rows, np.maximum(count - 1, 0) // 2] + ratios[rows, count // 2]) / 2
  return np.where(count >= MIN_BRIGHT, middle, 0.0)


def report(array: np.ndarray, ratios: np.ndarray) -> dict[str, Any]:
  """JSON-able dict about a scan (d,h,w) and its `log_ratios`.

  Returns:
    'largest': the largest change between neighbours, as a factor >= 1; 'jumps': how
    many are above JUMP; 'scaled_alone': whether all slices reach one and the same
    lowest and highest value, as slices do that were scaled one by one; 'signed':
    whether intensities are well below 0, as Hounsfield units are, whose ratios mean
    nothing: then the others are 1, 0 and False.
  """
  if _is_signed(array):
    return {'largest': 1.0, 'jumps': 0, 'scaled_alone': False, 'signed': True}
  factors = np.exp(np.abs(ratios))
  lows, highs = array.min((1, 2)), array.max((1, 2))
  alone = len(array) > 2 and np.ptp(lows) == 0 and np.ptp(highs) == 0
  return {
    'largest': round(float(factors.max(initial=1.0)), 4),
    'jumps': int((factors > JUMP).sum()),
    'scaled_alone': bool(alone),
    'signed': False,
  }


def _is_signed(array: np.ndarray) -> bool:
  """Whether more than rounding and ringing is below 0."""
  if array.min() >= 0:
    return False
  step = max(1, int(np.sqrt(array[0].size / NUM_SAMPLES)))
  low, high = np.percentile(array[:, ::step, ::step], (SIGNED_PERCENT, 99))
  return bool(low < -SIGNED_SHARE * max(high, 0))


def gains(ratios: np.ndarray) -> np.ndarray:
  """(d,) positive factors that leave no jumps, only a steady trend along d.

  The trend is the straight line nearest to the slices' log levels; the factors'
  geometric mean is 1.
  """
  levels = np.concatenate([[0.0], np.cumsum(ratios)])
  if len(levels) < 3:
    return np.ones(len(levels))
  place = np.arange(len(levels))
  trend = np.polyval(np.polyfit(place, levels, 1), place)
  return np.exp(trend - levels)
