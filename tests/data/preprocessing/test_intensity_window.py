"""The window by counting is the window by sorting, for any values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.data.preprocessing import preprocess


def by_sorting(array, percentiles, foreground):
  low = np.percentile(array, percentiles[0])
  body = array[array > array.mean(dtype=np.float64)] if foreground else array
  return low, np.percentile(body, percentiles[1])


@settings(max_examples=40, deadline=None)
@given(
  st.integers(0, 2**32 - 1),
  st.sampled_from([(0.5, 99.5), (1, 95), (0, 100)]),
  st.booleans(),
  st.sampled_from([1.0, 0.37, 1e-30, 1e30]),
  st.booleans(),
  st.booleans(),
)
def test_percentiles_equal_those_of_numpy(
  seed, percentiles, fore, unit, whole, outlier
):
  rng = np.random.default_rng(seed)
  array = rng.gamma(2, 30, (7, 11, 13)) - rng.integers(0, 100)
  array = (np.round(array) if whole else array) * unit
  if outlier:
    array[0, 0, 0] = 1e6 * unit
  array = array.astype(np.float32)
  expected = by_sorting(array, percentiles, fore)
  if expected[0] < expected[1]:
    found = preprocess.window(array, percentiles, fore)
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6 * unit)


def test_a_constant_scan_is_an_error():
  with pytest.raises(ValueError, match='constant value 7'):
    preprocess.window(np.full((3, 3, 3), 7.0), (1, 99), True)
