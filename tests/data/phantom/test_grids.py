"""Laws of the grid of a rendered volume."""

import numpy as np
import pytest

from ldm_jax.data.phantom.grids import VolumeGrid


def test_the_middle_voxel_lies_at_the_origin_and_axes_run_in_ras():
  grid = VolumeGrid((3, 5, 7), (8, 2, 1))
  np.testing.assert_allclose(grid.affine @ [1, 2, 3, 1], [0, 0, 0, 1])
  np.testing.assert_allclose(grid.affine @ [1, 1, 1, 0], [1, 2, 8, 0])
  assert grid.voxel_ml == pytest.approx(0.016)


@pytest.mark.parametrize(
  ('shape', 'spacing'),
  [((3, 5), (1, 1, 1)), ((3, 5, 0), (1, 1, 1)), ((3, 5, 7), (1, -1, 1))],
)
def test_other_than_three_positive_numbers_are_refused(shape, spacing):
  with pytest.raises(ValueError, match='three positive numbers'):
    VolumeGrid(shape, spacing)
