"""Laws of the look of the chest phantom."""

import numpy as np

from ldm_jax.data.phantom.chest import appearance
from ldm_jax.data.phantom.chest.population import sample_patient
from tests.data.phantom.renderings import (
  HEART,
  LUNGS,
  chest,
)


def test_lungs_are_dark_and_the_heart_bright_at_both_sites_of_unlike_contrast():
  contrasts = []
  for site in ('public', 'private'):
    found = chest(1, site)
    lungs, heart = (found.image[found.labels == k].mean() for k in (LUNGS, HEART))
    assert heart > lungs + 0.1
    contrasts.append(heart - lungs)
  assert contrasts[0] > contrasts[1] + 0.05


def test_a_detector_adds_noise_that_belongs_to_the_film():
  patient, _ = sample_patient(3, 0, 'public')
  grey = np.full((1, 32, 32), 0.5, np.float32)
  first, again, other = (appearance.degrade(grey, patient, k) for k in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert 0.005 < np.std(first) < 0.02 and abs(first.mean() - 0.5) < 0.005
  assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.2
