"""Laws of faulty labels: value, count and the likely reason are told."""

import numpy as np
import pytest

from ldm_jax.data.readers import label_faults


@pytest.mark.parametrize(
  ('value', 'words'),
  [
    (0.988, ('0.988 in 2 voxels', 'linear resampling')),
    (-1, ('-1 in 2 voxels', 'unknown')),
    (1022, ('1022 in 2 voxels', 'atlas')),
    (300, ('300 in 2 voxels', 'above 255')),
    (np.nan, ('2 NaN',)),
  ],
)
def test_an_impossible_label_is_told_as_what_it_is(value, words):
  array = np.zeros((3, 4, 5), np.float32)
  array[1, :2, 0] = value
  told = label_faults.found(array, np.rint(array.astype(np.float64)))
  assert all(word in told for word in words)


def test_small_whole_numbers_are_labels():
  array = np.arange(256, dtype=np.float32)
  assert label_faults.found(array, np.rint(array.astype(np.float64))) == ''
