"""Laws of predicted later visits: perfect, useless, and what is compared with what."""

import types

import numpy as np
import pytest

from ldm_jax.evaluation import forecasts

RNG = np.random.default_rng(0)
EARLIER, LATER = RNG.random((2, 5, 4, 12, 12, 1)).astype(np.float32)
PATIENTS = list('abcdd')


def test_a_perfect_prediction_gains_all_and_no_change_gains_nothing():
  halfway = (EARLIER + LATER) / 2
  perfect, nothing, half = (
    forecasts.prediction_quality(EARLIER, x, LATER, PATIENTS, num_resamples=50)
    for x in (LATER, EARLIER, halfway)
  )
  assert perfect['psnr']['value'] == 100 and perfect['ssim']['value'] == 1
  assert nothing['gain_psnr']['value'] == nothing['gain_ssim']['value'] == 0
  assert half['gain_psnr']['value'] == pytest.approx(20 * np.log10(2), rel=1e-3)
  assert half['unchanged_psnr'] == nothing['psnr']
  assert half['gain_psnr']['n'] == 4  # patients
  assert half['gain_psnr']['low'] <= half['gain_psnr']['value']


def test_a_distance_gains_by_falling():
  distance = lambda x, y: np.abs(x - y).mean((1, 2, 3, 4))
  found = forecasts.prediction_quality(EARLIER, LATER, LATER, PATIENTS, distance, 50)
  assert found['distance']['value'] == 0
  gain, unchanged = found['gain_distance'], found['unchanged_distance']
  assert gain['value'] == unchanged['value'] > 0


def test_scans_of_other_shapes_are_refused():
  with pytest.raises(ValueError, match=r'one shape.*\(4, 4, 12, 12, 1\)'):
    forecasts.prediction_quality(EARLIER, LATER[:4], LATER, PATIENTS)


def test_growth_is_measured_by_one_network_on_all_scans():
  """Labels are thresholds: a perfect prediction grows as the patient did."""
  network = types.SimpleNamespace(
    measures=True,
    labels=lambda x: (x[..., 0] > 0.5).astype(np.uint8),
    distance=lambda x, y: np.zeros(len(x)),
  )
  section = types.SimpleNamespace(
    measures=({'name': 'size', 'kind': 'volume', 'classes': (1,)},), num_bootstrap=20
  )
  scans = {'earlier': EARLIER, 'predicted': LATER, 'later': LATER}
  found = forecasts.longitudinal(
    {**scans, 'patients': PATIENTS, 'cohort': 'test'}, network, section, (1.0,) * 3
  )
  assert found['longitudinal_size']['gain']['value'] == pytest.approx(1)
  assert found['longitudinal_size']['error']['value'] == 0
  assert all(figure['internal'] for part in found.values() for figure in part.values())
