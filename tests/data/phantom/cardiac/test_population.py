"""Laws of the patients of the cardiac phantom."""

import numpy as np
import pytest

from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA
from ldm_jax.data.phantom.cardiac import cohort as cardiac
from tests.data.phantom.renderings import (
  SMALL,
  patient,
)


def test_ejection_fractions_follow_from_the_volumes():
  for index in range(40):
    drawn = patient(index, 'private')
    for side in ('LV', 'RV'):
      ejection = 100 * (1 - drawn[f'{side}ESV'] / drawn[f'{side}EDV'])
      assert drawn[f'{side}EF'] == pytest.approx(ejection, abs=0.01)


def test_affine_puts_the_middle_of_the_stack_at_the_origin():
  affine = SMALL.affine
  np.testing.assert_allclose(affine @ [5.5, 23.5, 23.5, 1], [0, 0, 0, 1])
  step = affine @ [1, 0, 0, 0], affine @ [0, 1, 0, 0], affine @ [0, 0, 1, 0]
  np.testing.assert_allclose(step, [[0, 0, 10, 0], [0, 3.66, 0, 0], [3.66, 0, 0, 0]])


def test_sites_differ_in_population_and_attributes_correlate():
  drawn = {
    site: cardiac.population(0, 400, site, SMALL.shape, SMALL.spacing_mm)
    for site in ('public', 'private')
  }

  def column(site, name):
    return np.array([row[name] for row in drawn[site]], float)

  assert column('private', 'AGE').mean() > column('public', 'AGE').mean() + 8
  wall = 'MYOEDTHICK'
  assert column('private', wall).mean() > column('public', wall).mean() + 0.5
  assert column('private', 'LVEF').mean() < column('public', 'LVEF').mean() - 3
  men = column('public', 'SEX') == 1
  volume = column('public', 'LVEDV')
  assert volume[men].mean() > volume[~men].mean() + 15
  assert np.corrcoef(volume, column('public', 'RVEDV'))[0, 1] > 0.6
  assert 0.4 < column('public', 'ESED').mean() < 0.6


def test_every_drawn_attribute_is_in_the_schema_and_its_range():
  for site in ('public', 'private'):
    for row in cardiac.population(3, 300, site):
      assert set(row) == set(CARDIAC_SCHEMA.names)
      assert CARDIAC_SCHEMA.out_of_range(row) == []
      assert np.isfinite(CARDIAC_SCHEMA.encode(row)).all()
