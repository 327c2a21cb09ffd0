"""Laws of the private prior: public bins, one vote a patient, drawing as released."""

import types

import numpy as np
import pytest

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.privacy import marginals, secret_key

SCHEMA = Schema(
  (
    Attribute('AGE', low=20, high=100),
    Attribute('SEX', 'categorical', categories=('F', 'M')),
    Attribute('EDV', low=0, high=300),
  )
)
PAIRS = (('SEX', 'EDV'), ('EDV', 'AGE'))


def cohort(num_patients, seed=0):
  """Two volumes a patient; EDV depends on SEX, AGE is missing in a quarter."""
  rng = np.random.default_rng(seed)
  sex = rng.integers(0, 2, num_patients)
  edv = np.where(sex == 1, 0.6, -0.6) + 0.1 * rng.normal(size=num_patients)
  age = np.where(rng.random(num_patients) < 0.25, np.nan, 0.1)
  rows = np.stack([age, sex, edv], axis=1).repeat(2, axis=0)
  groups = np.arange(2 * num_patients).reshape(num_patients, 2)
  return types.SimpleNamespace(
    attributes=rows.astype(np.float32),
    patient_entries=list(groups),
    num_patients=num_patients,
  )


def compute(split, sigma=1.0, pairs=PAIRS, num_bins=5):
  key = secret_key.new_noise_key(0)
  return marginals.compute(SCHEMA, num_bins, pairs, split, sigma, key, 'prior')


def test_the_released_shares_approach_those_of_a_large_cohort():
  prior, made = compute(cohort(4000))
  assert prior['shares']['AGE'][-1] == pytest.approx(0.25, abs=0.03)
  assert prior['shares']['AGE'][2] == pytest.approx(0.75, abs=0.03)
  np.testing.assert_allclose(prior['shares']['SEX'], [0.5, 0.5, 0], atol=0.03)
  np.testing.assert_allclose(
    np.asarray(prior['joint'][0])[1, 3:5].sum(), 0.5, atol=0.03
  )
  assert made['clip_norm'] == pytest.approx(np.sqrt(3 + 2))


def test_drawn_requests_follow_the_prior_and_its_pairs():
  prior, _ = compute(cohort(4000))
  drawn = marginals.draw(prior, SCHEMA, 4000, np.random.default_rng(1))
  age, sex, edv = drawn.T
  assert np.mean(np.isnan(age)) == pytest.approx(0.25, abs=0.04)
  assert set(np.unique(sex[~np.isnan(sex)])) <= {0.0, 1.0}
  assert np.nanmin(drawn) >= -1 and np.nanmax(drawn) <= 1
  both = ~np.isnan(sex) & ~np.isnan(edv)
  assert np.corrcoef(sex[both], edv[both])[0, 1] > 0.9
  decoded = SCHEMA.decode(drawn[0])
  assert decoded['SEX'] in ('F', 'M', None)


def test_without_pairs_the_attributes_are_drawn_independently():
  prior, _ = compute(cohort(4000), pairs=())
  _, sex, edv = marginals.draw(prior, SCHEMA, 4000, np.random.default_rng(1)).T
  both = ~np.isnan(sex) & ~np.isnan(edv)
  assert abs(np.corrcoef(sex[both], edv[both])[0, 1]) < 0.1


def test_a_patient_has_one_vote_however_many_volumes_there_are():
  """Without noise, a patient of many volumes weighs as much as one of a single one."""
  split = types.SimpleNamespace(
    attributes=np.array([[-0.9, 0, 0.0]] * 9 + [[0.9, 1, 0.0]], np.float32),
    patient_entries=[np.arange(9), np.array([9])],
    num_patients=2,
  )
  prior, _ = compute(split, sigma=1e-6)
  np.testing.assert_allclose(prior['shares']['SEX'], [0.5, 0.5, 0], atol=1e-4)


def test_the_bins_come_from_the_schema_and_nothing_falls_outside():
  codes = np.array([[-7.0, 0, 1.0], [7.0, 1, -1.0], [np.nan, np.nan, 0.999]])
  found = marginals.to_bins(SCHEMA, 5, codes)
  np.testing.assert_array_equal(found, [[0, 0, 4], [4, 1, 0], [5, 2, 4]])
  assert marginals.num_shares(SCHEMA, 5) == {'AGE': 6, 'SEX': 3, 'EDV': 6}


def test_noise_larger_than_the_signal_still_gives_requests_that_can_be_drawn():
  prior, _ = compute(cohort(4), sigma=100.0)
  drawn = marginals.draw(prior, SCHEMA, 200, np.random.default_rng(0))
  assert drawn.shape == (200, 3)
  assert np.nanmin(drawn) >= -1 and np.nanmax(drawn) <= 1


def test_the_uniform_prior_covers_every_range():
  prior = marginals.uniform(SCHEMA, 5, PAIRS)
  drawn = marginals.draw(prior, SCHEMA, 3000, np.random.default_rng(0))
  assert np.all(np.isfinite(drawn))
  np.testing.assert_allclose(drawn[:, 2].mean(), 0, atol=0.05)
  np.testing.assert_allclose(drawn[:, 2].std(), np.sqrt(1 / 3), atol=0.05)


@pytest.mark.parametrize(
  'pairs',
  [
    (('SEX', 'SHOE'),),
    (('SEX', 'EDV'), ('AGE', 'EDV')),
    (('SEX', 'EDV'), ('EDV', 'SEX')),
    (('SEX', 'SEX'),),
    (('SEX', 'EDV', 'AGE'),),
  ],
)
def test_pairs_that_form_no_trees_are_refused(pairs):
  with pytest.raises(ValueError, match='pairs'):
    marginals.uniform(SCHEMA, 5, pairs)
