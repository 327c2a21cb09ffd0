"""Laws of the look of the cardiac phantom."""

import numpy as np

from ldm_jax.data.phantom.cardiac import cohort as cardiac
from ldm_jax.data.phantom.cardiac.cohort import render
from ldm_jax.data.phantom.cardiac.population import sample_patient
from tests.data.phantom.renderings import (
  SMALL,
  patients_and_hearts,
)


def test_the_two_phases_share_the_chest_but_not_the_noise():
  patient = sample_patient(0, 0, 'public')
  images = [render(patient, phase).image for phase in cardiac.PHASES]
  difference = (images[0] - images[1])[: patient['DEPTH'], :14]
  assert 0 < np.abs(difference).mean() < 0.03
  assert np.corrcoef(images[0][:8, :14].ravel(), images[1][:8, :14].ravel())[0, 1] > 0.9


def test_blood_is_bright_muscle_dark_and_intensities_about_one_at_most():
  for _, rendered in patients_and_hearts(3, 'ED', SMALL):
    blood, muscle = (
      rendered.image[rendered.fractions[label] > 0.95].mean() for label in (1, 2)
    )
    assert blood > 1.5 * muscle
    assert rendered.image.dtype == np.float32
    assert rendered.image.min() >= 0 and rendered.image.max() < 1.6


def test_sites_differ_in_intensity_and_noise():
  blood, noise = {}, {}
  for site in ('public', 'private'):
    rendered = [
      [
        render(sample_patient(1, index, site, SMALL), phase, SMALL)
        for phase in ('ED', 'ES')
      ]
      for index in range(6)
    ]
    blood[site] = np.mean([ed.image[ed.labels == 1].mean() for ed, _ in rendered])
    # Behind the heart the two phases differ by their noise alone.
    noise[site] = np.mean(
      [np.std(ed.image[:7, :6] - es.image[:7, :6]) for ed, es in rendered]
    )
  assert blood['private'] < 0.9 * blood['public']
  assert noise['private'] > 1.3 * noise['public']


def test_bmi_shows_as_fat():
  thin, heavy = (
    render(sample_patient(0, 1, 'public') | {'BMI': bmi, 'ANGLE': 0.0}, 'ED').image
    for bmi in (20.0, 35.0)
  )
  assert (heavy[:8, 70:] > 0.6).mean() > 1.3 * (thin[:8, 70:] > 0.6).mean()
