"""Laws of the geometry of the chest phantom."""

import numpy as np
import pytest

from ldm_jax.evaluation.control import width_ratio
from tests.data.phantom.renderings import (
  CONSOLIDATION,
  EFFUSION,
  HEART,
  LUNGS,
  chest,
)


def moved(one, other):
  return np.abs(one.image - other.image) > 1e-6


def grown(mask, by=1):
  """The mask and its neighbours in the plane."""
  out = mask.copy()
  for axis in (1, 2):
    for step in range(-by, by + 1):
      out |= np.roll(mask, step, axis)
  return out


@pytest.mark.parametrize('index', [0, 1])
@pytest.mark.parametrize('ratio', [0.4, 0.6])
def test_the_cardiothoracic_ratio_of_the_labels_is_the_requested_one(index, ratio):
  labels = chest(index, cardiothoracic_ratio=ratio).labels[None]
  (found,) = width_ratio(labels, HEART, (LUNGS, HEART))
  assert found == pytest.approx(ratio, abs=0.035)


def test_a_man_has_a_wider_chest_than_he_would_have_as_a_woman():
  widths = [
    np.ptp(np.argwhere(chest(0, sex=sex).labels == LUNGS)[:, 2]) for sex in 'FM'
  ]
  assert widths[0] < widths[1]


def test_a_larger_heart_changes_only_where_a_heart_is():
  small, large = (chest(0, cardiothoracic_ratio=r) for r in (0.42, 0.6))
  hearts = (small.fractions[HEART] > 0) | (large.fractions[HEART] > 0)
  change = moved(small, large)
  assert change.any() and not (change & ~grown(hearts)).any()


def test_an_effusion_fills_a_lung_from_below_and_changes_nothing_else():
  found = [chest(1, effusion=e) for e in (0.0, 0.1, 0.3, 0.5)]
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
  clear, cloudy = chest(2), chest(2, consolidation='yes')
  assert clear.fractions[CONSOLIDATION].sum() == 0
  cloud = cloudy.labels == CONSOLIDATION
  assert cloud.sum() > 5
  assert cloudy.image[cloud].mean() > clear.image[cloud].mean() + 0.05
  assert moved(clear, cloudy).mean() < 0.25


def test_age_unfolds_the_aorta_and_thins_the_bones_but_leaves_the_outlines():
  young, old = chest(0, age=30.0), chest(0, age=85.0)
  assert moved(young, old).any()
  heart = young.fractions[HEART]
  np.testing.assert_array_equal(heart, old.fractions[HEART])
  assert old.fractions[LUNGS].sum() < young.fractions[LUNGS].sum()
