"""Laws of the subjects of the brain phantom and of what drives their brains."""

import numpy as np
import pytest

from ldm_jax.data.phantom.brain import cohort, population
from ldm_jax.data.phantom.brain.population import brain_of, sample_subject

# A subject without individual deviations, ill for two years at 75.
MEAN = {
  **dict.fromkeys(('head', 'ventricles', 'hippocampi', 'cortex', 'atrophy'), 0.0),
  'onset_age': 73.0,
}


def yearly(name, age, diagnosis='CN'):
  """Relative change of a size over the year before `age`, %."""
  sizes = [
    brain_of(MEAN, {'age': a, 'sex': 'F', 'diagnosis': diagnosis})[name]
    for a in (age - 1, age)
  ]
  return 100 * (sizes[1] / sizes[0] - 1)


def test_every_subject_ages_in_the_same_direction_and_declines_further():
  for index in range(40):
    subject, attributes = sample_subject(1, index, 'private')
    for diagnosis in population.DIAGNOSES:
      sizes = [
        brain_of(subject, {**attributes, 'age': age, 'diagnosis': diagnosis})
        for age in np.linspace(20, 95, 16)
      ]
      for name, sign in (('ventricles_ml', 1), ('hippocampi_ml', -1), ('gap_mm', 1)):
        assert np.all(sign * np.diff([size[name] for size in sizes]) > 0)
    stages = [
      brain_of(subject, {**attributes, 'diagnosis': diagnosis})
      for diagnosis in population.DIAGNOSES
    ]
    assert np.all(np.diff([stage['ventricles_ml'] for stage in stages]) > 0)
    assert np.all(np.diff([stage['hippocampi_ml'] for stage in stages]) < 0)


def test_slopes_are_those_of_the_literature():
  assert yearly('ventricles_ml', 80) == pytest.approx(5.6, abs=3.6)  # [Tang01]
  assert yearly('ventricles_ml', 80) > yearly('ventricles_ml', 60)  # [Scahill03]
  assert yearly('hippocampi_ml', 75) == pytest.approx(-1.41, abs=0.6)  # [Barnes09]
  assert yearly('hippocampi_ml', 76, 'AD') == pytest.approx(-4.66, abs=0.74)
  assert yearly('cortex_mm', 60) == pytest.approx(-0.35, abs=0.02)  # [Storsve14]
  faster = yearly('ventricles_ml', 76, 'AD') / yearly('ventricles_ml', 76)
  assert 1.8 < faster < 5  # 15.6 against 4.3 in [Bradley02]


def test_the_sites_differ_in_age_and_diagnosis():
  draws = {
    site: cohort.population(0, 300, site=site) for site in population.POPULATIONS
  }
  age = {site: np.mean([d['age'] for d in found]) for site, found in draws.items()}
  healthy = {
    site: np.mean([d['diagnosis'] == 'CN' for d in found])
    for site, found in draws.items()
  }
  assert age['private'] > age['public'] + 10
  assert healthy['private'] < healthy['public'] - 0.25
  size = {
    sex: np.mean([d['hippocampi_ml'] for d in draws['public'] if d['sex'] == sex])
    for sex in ('F', 'M')
  }
  assert size['M'] > size['F']


def test_cohorts_of_different_names_share_no_subject():
  one, two = (sample_subject(0, 0, 'public', name)[0] for name in ('a', 'b'))
  assert one['form_seed'] != two['form_seed']


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'age': 120.0}, '20 to 95'),
    ({'diagnosis': 'flu'}, 'CN'),
    ({'weight': 3}, 'weight'),
    ({'ventricles_ml': 0.0}, 'above 0'),
  ],
)
def test_impossible_attributes_are_refused(changes, words):
  subject, attributes = sample_subject(7, 0, 'public')
  with pytest.raises(ValueError, match=words):
    brain_of(subject, {**attributes, **changes})


def test_an_unlikely_size_may_be_set():
  subject, attributes = sample_subject(7, 0, 'public')
  changes = {'ventricles_ml': 119.0, 'age': 25.0}
  assert brain_of(subject, {**attributes, **changes})['ventricles_ml'] == 119
