"""Laws of slices: every voxel once along each axis, and means per volume."""

import numpy as np
import pytest

from ldm_jax.models.critics import planes

X = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5, 1)


@pytest.mark.parametrize(
  ('axis', 'shape'), [(0, (6, 4, 5, 1)), (1, (8, 3, 5, 1)), (2, (10, 3, 4, 1))]
)
def test_slices_hold_every_voxel_once_volume_by_volume(axis, shape):
  found = np.asarray(planes.slices(X, axis))
  assert found.shape == shape
  np.testing.assert_array_equal(np.sort(found, None), np.sort(X, None))
  half = len(found) // 2
  np.testing.assert_array_equal(found[1], np.take(X[0], 1, axis))
  np.testing.assert_array_equal(found[half], np.take(X[1], 0, axis))


def test_without_planes_a_network_gets_the_volumes():
  (found,) = planes.views(X, ())
  assert found is X
  assert [len(view) for view in planes.views(X, (2, 0))] == [10, 6]


def test_the_mean_of_slices_is_that_of_their_volume():
  expected = X.mean((1, 2, 3, 4))
  for axis in (0, 1, 2):
    np.testing.assert_allclose(planes.per_example(planes.slices(X, axis), 2), expected)


@pytest.mark.parametrize(('x', 'axes'), [(X, (3,)), (X[:, 0], (0,))])
def test_planes_that_are_no_axes_are_refused(x, axes):
  with pytest.raises(ValueError, match='expected some of the axes'):
    planes.views(x, axes)
