"""Laws of linear resampling, axis by axis."""

import numpy as np

from ldm_jax.data.preprocessing import resampling


def test_a_scale_of_one_is_an_exact_crop():
  array = np.random.default_rng(0).random((5, 6, 7), np.float32)
  place = (1, 1, 1), (2, 0, -1)
  within = resampling.reach(array.shape, (3, 4, 5), *place)
  assert within == (slice(0, 3), slice(0, 4), slice(1, 5))
  found = resampling.linear(array, within, *place)
  np.testing.assert_array_equal(found, array[2:5, :4, :4])
  np.testing.assert_array_equal(resampling.nearest(array, within, *place), found)


def test_a_ramp_stays_a_ramp_at_any_scale():
  ramp = np.arange(40.0)[:, None, None] * np.ones((1, 2, 2))
  for scale, offset in ((0.5, 3.0), (1.7, 4.2), (3.0, 5.0)):
    place = (scale, 1, 1), (offset, 0, 0)
    within = resampling.reach(ramp.shape, (10, 2, 2), *place)
    inner = (slice(1, 9), *within[1:])
    found = resampling.linear(ramp, inner, *place)
    np.testing.assert_allclose(
      found[:, 0, 0], scale * np.arange(1, 9) + offset, rtol=1e-5
    )


def test_a_coarser_grid_does_not_alias():
  stripes = np.tile([0.0, 1.0], 30)[:, None, None] * np.ones((1, 2, 2))
  place = (4.0, 1, 1), (2.0, 0, 0)
  within = resampling.reach(stripes.shape, (14, 2, 2), *place)
  found = resampling.linear(stripes, within, *place)[1:-1]
  assert np.abs(found - 0.5).max() < 0.1


def test_outputs_beyond_the_outermost_voxels_are_out_of_reach():
  within = resampling.reach((4, 4, 4), (4, 4, 4), (1, 2, 1), (9, 0, -2))
  assert within == (slice(0, 0), slice(0, 2), slice(2, 4))
