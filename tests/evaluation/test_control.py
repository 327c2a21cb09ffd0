"""Laws of controllability figures and of the measurements behind them."""

import numpy as np
import pytest

from ldm_jax.evaluation import control


def test_a_perfect_measurement_correlates_fully_and_has_no_error():
  requested = np.linspace(60, 200, 20)
  result = control.agreement(requested, requested)
  assert result['pearson_r'] == pytest.approx(1)
  assert result['mae'] == result['bias'] == 0
  assert result['n'] == 20


def test_scale_and_offset_leave_the_correlation_but_not_the_error():
  requested = np.linspace(60, 200, 20)
  result = control.agreement(requested, 0.5 * requested - 3)
  assert result['pearson_r'] == pytest.approx(1)
  assert result['bias'] == pytest.approx(-(0.5 * requested.mean() + 3))


def test_the_fisher_interval_covers_the_true_correlation():
  rng, truth, covered = np.random.default_rng(0), 0.8, 0
  for _ in range(400):
    x = rng.normal(size=25)
    y = truth * x + np.sqrt(1 - truth**2) * rng.normal(size=25)
    result = control.agreement(x, y, num_resamples=1)
    covered += result['pearson_r_low'] <= truth <= result['pearson_r_high']
  assert 0.92 < covered / 400 < 0.98


def test_missing_values_are_left_out_and_counted():
  result = control.agreement([1, 2, np.nan, 4], [1, 2, 3, np.nan])
  assert (result['n'], result['num_missing']) == (2, 2)
  assert result['mae'] == 0


def test_a_constant_request_has_no_correlation():
  result = control.agreement([5, 5, 5, 5], [1, 2, 3, 4])
  assert result['pearson_r'] is None
  assert result['mae'] == pytest.approx(2.5)


def test_volume_of_a_known_ball_is_found_from_labels_and_probabilities():
  grid = np.stack(np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing='ij'))
  labels = ((grid**2).sum(0) < 15**2).astype(np.uint8)[None]
  expected = 4 / 3 * np.pi * 15**3 * 0.008
  assert control.volume_ml(labels, 1, 0.008)[0] == pytest.approx(expected, rel=0.02)
  probabilities = np.stack([1 - labels, labels], axis=-1).astype(np.float32)
  soft = control.volume_ml(probabilities, [1], np.array([0.008]))
  np.testing.assert_allclose(soft, control.volume_ml(labels, 1, 0.008))


def test_wall_thickness_of_a_known_tube_is_its_wall():
  y, x = np.meshgrid(np.arange(128) - 63.5, np.arange(128) - 63.5, indexing='ij')
  radius = np.hypot(y * 1.5, x * 1.25)
  plane = np.where(radius < 22, 1, np.where(radius < 31, 2, 0)).astype(np.uint8)
  labels = np.stack([plane] * 9)[None]
  labels[0, :2] = np.where(plane == 1, 2, plane)  # A closed apex must not count.
  thickness = control.wall_thickness_mm(labels, 1, 2, (8.0, 1.5, 1.25))
  assert thickness[0] == pytest.approx(9.0, abs=0.1)


def test_a_stack_without_cavity_has_no_thickness():
  empty = np.zeros((1, 3, 8, 8), int)
  assert np.isnan(control.wall_thickness_mm(empty, 1, 2, (1, 1, 1))[0])


@pytest.mark.parametrize(
  'call',
  [
    lambda: control.agreement([1, 2], [1]),
    lambda: control.volume_ml(np.zeros((8, 8), int), 1, 1.0),
    lambda: control.volume_ml(np.zeros((1, 8, 8, 8), float), 1, 1.0),
  ],
)
def test_unusable_shapes_are_refused(call):
  with pytest.raises(ValueError, match=r'Expected .*, got'):
    call()


def test_the_width_ratio_is_that_of_the_outermost_columns():
  labels = np.zeros((3, 1, 8, 20), np.uint8)
  labels[:2, :, 2:6, 2:18] = 1  # 16 columns of chest
  labels[0, :, 3:5, 6:14] = 2  # 8 of heart
  ratio = control.width_ratio(labels, 2, (1, 2))
  assert ratio[0] == 0.5
  assert np.isnan(ratio[1:]).all()  # no heart, no chest
  labels[0, 0, 0, 19] = 2  # one stray pixel
  assert control.width_ratio(labels, 2, (1, 2), min_pixels=2)[0] == 0.5
