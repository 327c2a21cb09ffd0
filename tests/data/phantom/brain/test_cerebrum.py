"""Laws of cortex, ventricles and hippocampi of the brain phantom."""

import numpy as np
import pytest

from ldm_jax.data.phantom.brain.population import brain_of, sample_subject
from tests.data.phantom.renderings import VENTRICLES, brain


@pytest.mark.parametrize('index', [0, 1])
def test_measured_volumes_are_those_of_the_mechanism(index):
  subject, attributes = sample_subject(7, index, 'public')
  wanted, found = brain_of(subject, attributes), brain(index).volumes_ml
  assert found['ventricles'] == pytest.approx(wanted['ventricles_ml'], rel=0.02)
  assert found['hippocampi'] == pytest.approx(wanted['hippocampi_ml'], rel=0.05)
  inside = sum(found.values())
  assert inside == pytest.approx(wanted['intracranial_ml'], rel=0.05)


def test_with_age_ventricles_grow_and_cortex_and_hippocampi_shrink():
  found = [brain(0, age=age, diagnosis='CN') for age in (25.0, 60.0, 90.0)]
  hard = [(r.labels == VENTRICLES).sum() for r in found]
  for name, sign in (('ventricles', 1), ('csf', 1), ('grey', -1), ('hippocampi', -1)):
    assert np.all(sign * np.diff([r.volumes_ml[name] for r in found]) > 0), name
  assert np.all(np.diff(hard) > 0)


def test_disease_shows_in_the_labels():
  healthy, sick = (brain(1, age=75.0, diagnosis=d) for d in ('CN', 'AD'))
  assert sick.volumes_ml['ventricles'] > 1.3 * healthy.volumes_ml['ventricles']
  assert sick.volumes_ml['hippocampi'] < 0.85 * healthy.volumes_ml['hippocampi']
  assert sick.volumes_ml['grey'] < 0.96 * healthy.volumes_ml['grey']


def test_an_effect_that_is_set_leaves_its_causes_and_siblings_alone():
  before, after = brain(1), brain(1, ventricles_ml=55.0)
  assert after.volumes_ml['ventricles'] == pytest.approx(55, rel=0.02)
  hippocampi = after.volumes_ml['hippocampi']
  assert hippocampi == pytest.approx(before.volumes_ml['hippocampi'], rel=0.05)
