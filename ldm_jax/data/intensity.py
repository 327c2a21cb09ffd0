"""The window of a scan: percentiles of its foreground, exact, in float32."""

from __future__ import annotations

import numpy as np

NUM_BINS = 2**16


def window(
  array: np.ndarray, percentiles: tuple[float, float], foreground: bool
) -> tuple[float, float]:
  """Intensities (low, high) that become 0 and 1.

  Args:
    array: (d,h,w) float32.
    percentiles: of all voxels, and of the foreground if `foreground` else of all.
    foreground: what is brighter than the mean.

  Raises:
    ValueError: one constant value.
  """
  values = np.asarray(array, np.float32).ravel()
  smallest, largest = float(values.min()), float(values.max())
  if not smallest < largest:
    raise ValueError(
      f'A scan with the constant value {smallest:g} came; required is an image. '
      'Remove the file from the cohort.'
    )
  ordered = _Ordered(values, smallest, largest)
  low = ordered.percentile(percentiles[0])
  darker = 0
  if foreground:
    darker = ordered.count_up_to(float(values.mean(dtype=np.float64)))
  high = ordered.percentile(percentiles[1], darker)
  # Few bright voxels on a flat ground leave nothing between the percentiles.
  return (low, high) if low < high else (smallest, largest)


class _Ordered:
  """Order statistics of many values: count in bins, sort within the bin asked for.

  The map to bins is monotone, so this is exact, at half the time of partitioning all.
  """

  def __init__(self, values: np.ndarray, smallest: float, largest: float):
    self._values, self._sorted = values, {}
    scale = np.float32((NUM_BINS - 1) / (largest - smallest))
    if not np.isfinite(scale):  # a range of denormal numbers
      scale = np.float32(0)
    self._origin, self._scale = np.float32(smallest), scale
    self._bins = self._bin(values)
    self._ends = np.cumsum(np.bincount(self._bins, minlength=NUM_BINS))

  def percentile(self, percentile: float, skip: int = 0) -> float:
    """As np.percentile (linear) of all but the `skip` smallest values."""
    place = percentile / 100 * (len(self._values) - skip - 1)
    first = self._at(skip + int(np.floor(place)))
    second = self._at(skip + int(np.ceil(place)))
    return first + (second - first) * (place - np.floor(place))

  def count_up_to(self, bound: float) -> int:
    """How many values are not above the bound."""
    number = int(self._bin(np.float32(bound)))
    before = self._ends[number] - len(self._within(number))
    return int(before + np.searchsorted(self._within(number), bound, side='right'))

  def _bin(self, values):
    scaled = (values - self._origin) * self._scale
    return np.clip(scaled, 0, NUM_BINS - 1).astype(np.uint16)

  def _at(self, place: int) -> float:
    number = int(np.searchsorted(self._ends, place, side='right'))
    within = self._within(number)
    return float(within[place - self._ends[number] + len(within)])

  def _within(self, number: int) -> np.ndarray:
    if number not in self._sorted:
      found = self._values[self._bins == number]
      if found.size and found.min() < found.max():
        found.sort()
      self._sorted[number] = found
    return self._sorted[number]
