"""Laws of the chest phantom."""

import functools

import numpy as np
import pytest

from ldm_jax.data.phantom import draws
from ldm_jax.data.phantom.chest import cohort as chest
from ldm_jax.data.phantom.chest import population
from ldm_jax.data.phantom.chest.population import sample_patient
from ldm_jax.evaluation.control import width_ratio

DETECTOR = chest.Detector((1, 64, 64))
LUNGS, HEART, EFFUSION, CONSOLIDATION = range(1, 5)
HEALTHY = {'effusion': 0.0, 'consolidation': 'no', 'cardiothoracic_ratio': 0.45}


@functools.cache
def rendered(index, site='public', **changes):
  patient, attributes = sample_patient(3, index, site)
  return chest.render(patient, {**attributes, **HEALTHY, **changes}, DETECTOR)


def moved(one, other):
  return np.abs(one.image - other.image) > 1e-6


def grown(mask, by=1):
  """The mask and its neighbours in the plane."""
  out = mask.copy()
  for axis in (1, 2):
    for step in range(-by, by + 1):
      out |= np.roll(mask, step, axis)
  return out


@pytest.mark.parametrize('index', [0, 1, 2])
@pytest.mark.parametrize('ratio', [0.4, 0.6])
def test_the_cardiothoracic_ratio_of_the_labels_is_the_requested_one(index, ratio):
  labels = rendered(index, cardiothoracic_ratio=ratio).labels[None]
  (found,) = width_ratio(labels, HEART, (LUNGS, HEART))
  assert found == pytest.approx(ratio, abs=0.035)


def test_a_larger_heart_changes_only_where_a_heart_is():
  small, large = (rendered(0, cardiothoracic_ratio=r) for r in (0.42, 0.6))
  hearts = (small.fractions[HEART] > 0) | (large.fractions[HEART] > 0)
  change = moved(small, large)
  assert change.any() and not (change & ~grown(hearts)).any()


def test_an_effusion_fills_a_lung_from_below_and_changes_nothing_else():
  found = [rendered(1, effusion=e) for e in (0.0, 0.1, 0.3, 0.5)]
  areas = [r.fractions[EFFUSION].sum() for r in found]
  assert areas[0] == 0 and np.all(np.diff(areas) > 2)
  change = moved(found[0], found[-1])
  lungs = found[0].fractions[LUNGS] + found[0].fractions[HEART] > 0
  assert change.any() and not (change & ~grown(lungs, 2)).any()
  air = found[0].labels == LUNGS
  fluid = (found[-1].labels == EFFUSION) & air
  assert found[-1].image[fluid].mean() > found[0].image[fluid].mean() + 0.1
  sides = [fluid[..., :32].sum(), fluid[..., 32:].sum()]
  assert min(sides) == 0  # one side only
  rows = [np.argwhere(part)[:, 1].mean() for part in (fluid, air & ~fluid)]
  assert rows[0] > rows[1]


def test_a_consolidation_is_a_cloud_in_a_lung():
  clear, cloudy = rendered(2), rendered(2, consolidation='yes')
  assert clear.fractions[CONSOLIDATION].sum() == 0
  cloud = cloudy.labels == CONSOLIDATION
  assert cloud.sum() > 5
  assert cloudy.image[cloud].mean() > clear.image[cloud].mean() + 0.05
  assert moved(clear, cloudy).mean() < 0.25


def test_age_unfolds_the_aorta_and_thins_the_bones_but_leaves_the_outlines():
  young, old = rendered(0, age=30.0), rendered(0, age=85.0)
  assert moved(young, old).any()
  heart = young.fractions[HEART]
  np.testing.assert_array_equal(heart, old.fractions[HEART])
  assert old.fractions[LUNGS].sum() < young.fractions[LUNGS].sum()


def test_a_man_has_a_wider_chest_than_he_would_have_as_a_woman():
  widths = [
    np.ptp(np.argwhere(rendered(0, sex=sex).labels == LUNGS)[:, 2]) for sex in 'FM'
  ]
  assert widths[0] < widths[1]


def test_a_null_change_is_no_change():
  cohort = chest.cohort('c', 1, shape=DETECTOR.shape)
  (record,) = cohort.records
  scan, labels = record.source.read()
  again, _ = record.source.counterfactual({}).read()
  np.testing.assert_array_equal(scan.array, again.array)
  assert scan.array.shape == labels.array.shape == (1, 64, 64)
  # Rows run downwards, columns to the patient's left, as a film is looked at.
  np.testing.assert_allclose(np.sign(scan.affine[[1, 2, 0], [0, 1, 2]]), (1, -1, -1))
  other = record.source.counterfactual({'cardiothoracic_ratio': 0.66})
  assert other.fingerprint() != record.source.fingerprint()


def test_lungs_are_dark_and_the_heart_bright_at_both_sites_of_unlike_contrast():
  contrasts = []
  for site in ('public', 'private'):
    found = rendered(1, site)
    lungs, heart = (found.image[found.labels == k].mean() for k in (LUNGS, HEART))
    assert heart > lungs + 0.1
    contrasts.append(heart - lungs)
  assert contrasts[0] > contrasts[1] + 0.05


def test_fractions_are_shares_and_the_heart_lies_to_the_patients_left():
  found = rendered(0)
  assert found.fractions.min() >= -1e-6
  np.testing.assert_allclose(found.fractions.sum(0), 1, atol=1e-5)
  assert np.argwhere(found.labels == HEART)[:, 2].mean() > 32
  assert np.isfinite(found.image).all() and found.image.max() < 1.6


def test_the_sites_differ_in_their_patients():
  drawn = {site: chest.population(0, 300, site=site) for site in ('public', 'private')}

  def mean(site, name):
    return np.mean([draw[name] for draw in drawn[site]])

  for name in ('age', 'cardiothoracic_ratio', 'effusion'):
    assert mean('private', name) > mean('public', name)
  for draw in drawn['private']:
    draws.check_attributes('chest', draw, population.SCHEMA)


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'cardiothoracic_ratio': 0.9}, '0.3 to 0.75'),
    ({'consolidation': 'maybe'}, 'no'),
    ({'age': 'old'}, '18 to 95'),
    ({'weight': 3}, 'weight'),
  ],
)
def test_impossible_attributes_are_refused(changes, words):
  with pytest.raises(ValueError, match=words):
    rendered(0, **changes)


def test_impossible_options_are_refused():
  with pytest.raises(ValueError, match='rows, columns'):
    chest.Detector((2, 64, 64))
  with pytest.raises(ValueError, match='public'):
    sample_patient(0, 0, 'moon')
  with pytest.raises(ValueError, match='at least 1'):
    chest.cohort('c', 0)
