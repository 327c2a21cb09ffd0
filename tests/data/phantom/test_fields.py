"""Laws of the building blocks of the phantoms."""

import numpy as np
import pytest

from ldm_jax.data.phantom import fields


def test_waves_have_unit_deviation_and_one_value_on_every_grid():
  waves = fields.waves(np.random.default_rng(0), 8.0, num=40)
  axes = [fields.centres(n, 1.5) for n in (24, 26, 28)]
  grid = waves.on_grid(*axes)
  assert abs(grid.mean()) < 0.1 and grid.std() == pytest.approx(1, abs=0.15)
  points = np.stack(np.meshgrid(*axes, indexing='ij')).reshape(3, -1)[:, ::97]
  np.testing.assert_allclose(waves.at(points), grid.ravel()[::97], atol=1e-3)


def test_the_gradient_of_waves_is_the_slope_of_their_values():
  waves = fields.waves(np.random.default_rng(1), 20.0)
  points = np.random.default_rng(2).normal(0, 5, (3, 50)).astype(np.float32)
  value, gradient = waves.at_with_gradient(points)
  step = np.float32([[0.05], [0], [0]])
  slope = (waves.at(points + step) - waves.at(points - step)) / 0.1
  np.testing.assert_allclose(value, waves.at(points))
  np.testing.assert_allclose(gradient[0], slope, atol=2e-3)


@pytest.mark.parametrize('power', [2.0, 2.4])
def test_the_distance_to_a_ball_is_exact_near_its_surface(power):
  points = np.array([[9.5, 10.0, 10.5], [0, 0, 0], [0, 0, 0]], np.float32)
  found = fields.ellipsoid(points, (0, 0, 0), (10, 10, 10), power)
  np.testing.assert_allclose(found, [-0.5, 0, 0.5], atol=0.02)


def test_a_tube_is_as_far_as_its_axis_and_thins_along_it():
  distances, radii = fields.tube(np.array([[5.0], [3.0]]), [(0, 0, 2), (10, 0, 1)])
  np.testing.assert_allclose([distances.item(), radii.item()], [3, 1.5])


def test_shares_are_those_of_a_voxel_that_a_border_cuts():
  np.testing.assert_allclose(
    fields.share(np.float32([-9, -0.5, 0, 0.5, 9]), 2.0), [1, 0.75, 0.5, 0.25, 0]
  )
  thin = fields.sheet_share(np.float32([0, 5]), 0.25, 2.0)
  np.testing.assert_allclose(thin, [0.25, 0])


def test_pooled_blocks_keep_the_mean():
  field = np.random.default_rng(0).random((2, 4, 6, 6), np.float32)
  pooled = fields.pool(field, (2, 3, 1))
  assert pooled.shape == (2, 2, 2, 6)
  np.testing.assert_allclose(pooled[0, 0, 0, 0], field[0, :2, :3, 0].mean(), rtol=1e-6)


def test_centres_lie_in_the_middle_and_are_refined_within_voxels():
  np.testing.assert_allclose(fields.centres(3, 2.0), [-2, 0, 2])
  np.testing.assert_allclose(fields.centres(2, 2.0, 2), [-1.5, -0.5, 0.5, 1.5])


def test_noise_of_a_magnitude_lifts_the_dark():
  rng = np.random.default_rng(0)
  dark = fields.rician(rng, np.zeros(20000, np.float32), 0.1)
  bright = fields.rician(rng, np.ones(20000, np.float32), 0.1)
  assert dark.mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.02)
  assert bright.mean() == pytest.approx(1.005, abs=0.005)


def test_a_size_is_found_whose_shares_have_the_target():
  shares = lambda size: np.full(10, size**2)
  size, field = fields.solve(shares, 0.5, 45.0, 1.0)
  assert size == pytest.approx(3, rel=2e-3) and field.sum() * 0.5 == pytest.approx(
    45, rel=3e-3
  )
  with pytest.raises(ValueError, match='of the requested volume'):
    fields.solve(lambda size: np.ones(10), 1.0, 45.0, 1.0)
