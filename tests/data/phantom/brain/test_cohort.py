"""Laws of the brain phantom."""

import dataclasses
import functools

import numpy as np
import pytest

from ldm_jax.data.phantom.brain import cohort as brain
from ldm_jax.data.phantom.brain import population
from ldm_jax.data.phantom.brain.population import brain_of, sample_subject

VIEW = brain.View((24, 32, 24), (6.5, 6.5, 6.5))
CSF, GREY, WHITE, VENTRICLES, HIPPOCAMPI, HINDBRAIN = range(1, 7)
# A subject without deviations of his own, ill for two years at 75.
MEAN = {
  **dict.fromkeys(('head', 'ventricles', 'hippocampi', 'cortex', 'atrophy'), 0.0),
  'onset_age': 73.0,
}


@functools.cache
def rendered(index, **changes):
  subject, attributes = sample_subject(7, index, 'public')
  return brain.render(subject, {**attributes, **changes}, VIEW)


def yearly(name, age, diagnosis='CN'):
  """Relative change of a size over the year before `age`, %."""
  sizes = [
    brain_of(MEAN, {'age': a, 'sex': 'F', 'diagnosis': diagnosis})[name]
    for a in (age - 1, age)
  ]
  return 100 * (sizes[1] / sizes[0] - 1)


@pytest.mark.parametrize('index', [0, 1])
def test_measured_volumes_are_those_of_the_mechanism(index):
  subject, attributes = sample_subject(7, index, 'public')
  wanted, found = brain_of(subject, attributes), rendered(index).volumes_ml
  assert found['ventricles'] == pytest.approx(wanted['ventricles_ml'], rel=0.02)
  assert found['hippocampi'] == pytest.approx(wanted['hippocampi_ml'], rel=0.05)
  inside = sum(found.values())
  assert inside == pytest.approx(wanted['intracranial_ml'], rel=0.05)


def test_with_age_ventricles_grow_and_cortex_and_hippocampi_shrink():
  found = [rendered(0, age=age, diagnosis='CN') for age in (25.0, 60.0, 90.0)]
  hard = [(r.labels == VENTRICLES).sum() for r in found]
  for name, sign in (('ventricles', 1), ('csf', 1), ('grey', -1), ('hippocampi', -1)):
    assert np.all(sign * np.diff([r.volumes_ml[name] for r in found]) > 0), name
  assert np.all(np.diff(hard) > 0)


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


def test_disease_shows_in_the_labels():
  healthy, sick = (rendered(1, age=75.0, diagnosis=d) for d in ('CN', 'AD'))
  assert sick.volumes_ml['ventricles'] > 1.3 * healthy.volumes_ml['ventricles']
  assert sick.volumes_ml['hippocampi'] < 0.85 * healthy.volumes_ml['hippocampi']
  assert sick.volumes_ml['grey'] < 0.96 * healthy.volumes_ml['grey']


def test_slopes_are_those_of_the_literature():
  assert yearly('ventricles_ml', 80) == pytest.approx(5.6, abs=3.6)  # [Tang01]
  assert yearly('ventricles_ml', 80) > yearly('ventricles_ml', 60)  # [Scahill03]
  assert yearly('hippocampi_ml', 75) == pytest.approx(-1.41, abs=0.6)  # [Barnes09]
  assert yearly('hippocampi_ml', 76, 'AD') == pytest.approx(-4.66, abs=0.74)
  assert yearly('cortex_mm', 60) == pytest.approx(-0.35, abs=0.02)  # [Storsve14]
  faster = yearly('ventricles_ml', 76, 'AD') / yearly('ventricles_ml', 76)
  assert 1.8 < faster < 5  # 15.6 against 4.3 in [Bradley02]


def test_what_age_and_disease_do_not_drive_stays_bit_for_bit():
  young = rendered(0, age=30.0, diagnosis='CN')
  old = rendered(0, age=88.0, diagnosis='AD')
  for label in (0, HINDBRAIN):
    alone = (young.fractions[label] == 1) & (old.fractions[label] == 1)
    assert alone.sum() > 100
    np.testing.assert_array_equal(young.image[alone], old.image[alone])
  assert np.abs(young.image - old.image).max() > 0.2
  skull = young.fractions[0] == old.fractions[0]
  assert skull.mean() > 0.999  # the inside of the skull is the same


def test_a_null_change_is_no_change_and_two_scans_differ_by_noise_only():
  subject, attributes = sample_subject(7, 0, 'public')
  first, again = (brain.render(subject, attributes, VIEW) for _ in range(2))
  np.testing.assert_array_equal(first.image, again.image)
  other = brain.render(subject, attributes, VIEW, acquisition=1)
  np.testing.assert_array_equal(first.labels, other.labels)
  assert 0 < np.abs(first.image - other.image).mean() < 0.05


def test_a_later_visit_is_the_true_older_brain_of_the_same_subject():
  options = {'shape': VIEW.shape, 'spacing_mm': VIEW.spacing_mm, 'num_visits': 2}
  cohort = brain.cohort('c', 3, seed=4, interval_years=6.0, **options)
  assert len(cohort) == 3 and len(cohort.records) == 6
  for first, second in zip(cohort.records[::2], cohort.records[1::2], strict=True):
    assert first.patient == second.patient and first.visit != second.visit
    grown = second.attributes['age'] - first.attributes['age']
    assert grown == pytest.approx(6)
    ventricles = [r.attributes['ventricles_ml'] for r in (first, second)]
    assert ventricles[1] > ventricles[0]
  first, second = cohort.records[:2]
  changes = {name: second.attributes[name] for name in ('age', 'diagnosis')}
  truth = first.source.counterfactual(changes)
  np.testing.assert_array_equal(truth.read()[1].array, second.source.read()[1].array)
  assert truth.fingerprint() != first.source.fingerprint()


def test_an_effect_that_is_set_leaves_its_causes_and_siblings_alone():
  before, after = rendered(1), rendered(1, ventricles_ml=55.0)
  assert after.volumes_ml['ventricles'] == pytest.approx(55, rel=0.02)
  hippocampi = after.volumes_ml['hippocampi']
  assert hippocampi == pytest.approx(before.volumes_ml['hippocampi'], rel=0.05)


def test_fractions_are_disjoint_shares_and_labels_the_largest_one():
  found = rendered(1)
  assert found.fractions.min() >= -1e-6
  np.testing.assert_allclose(found.fractions.sum(0), 1, atol=1e-4)
  np.testing.assert_array_equal(found.labels, found.fractions.argmax(0))
  assert {CSF, GREY, WHITE, VENTRICLES, HINDBRAIN} <= set(np.unique(found.labels))


def test_the_head_lies_within_the_field_of_view_above_the_neck():
  labels = rendered(0).labels
  for side in (
    labels[-1],
    labels[:, 0],
    labels[:, -1],
    labels[..., 0],
    labels[..., -1],
  ):
    assert not side.any()


def test_white_matter_is_brighter_than_grey_and_grey_than_csf_at_both_sites():
  ratios = []
  for site in ('public', 'private'):
    subject, attributes = sample_subject(7, 2, site)
    found = brain.render(subject, attributes, VIEW)
    means = [found.image[found.fractions[label] > 0.9].mean() for label in (1, 2, 3)]
    assert means[0] < means[1] < means[2]
    ratios.append(means[2] / means[1])
  assert ratios[0] > ratios[1] + 0.1  # the sites differ in contrast


def test_the_sites_differ_in_age_and_diagnosis():
  draws = {site: brain.population(0, 300, site=site) for site in population.POPULATIONS}
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
    ({'ventricles_ml': -1.0}, 'above 0'),
    ({'ventricles_ml': 119.0, 'age': 25.0}, ''),
  ],
)
def test_impossible_attributes_are_refused(changes, words):
  subject, attributes = sample_subject(7, 0, 'public')
  if not words:  # large, but a head can hold it
    assert brain_of(subject, {**attributes, **changes})['ventricles_ml'] == 119
    return
  with pytest.raises(ValueError, match=words):
    brain.render(subject, {**attributes, **changes}, VIEW)


def test_impossible_options_are_refused():
  with pytest.raises(ValueError, match='hold a head'):
    brain.View((10, 10, 10), (5, 5, 5))
  with pytest.raises(ValueError, match='public'):
    sample_subject(0, 0, 'moon')
  for options in ({'num_patients': 0}, {'num_patients': 1, 'num_visits': 0}):
    with pytest.raises(ValueError, match='at least 1'):
      brain.cohort('c', **options)
  with pytest.raises(ValueError, match='interval_years'):
    brain.cohort('c', 1, interval_years=0)


def test_the_fingerprint_tells_scans_apart_without_rendering():
  source = brain.cohort('c', 1).records[0].source
  others = [dataclasses.replace(source, **{k: 9}) for k in ('seed', 'index')]
  prints = {s.fingerprint() for s in (source, *others)}
  assert len(prints) == 3
