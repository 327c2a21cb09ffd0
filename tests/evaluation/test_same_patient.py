"""Laws of the figures of patients with several volumes."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from ldm_jax.data.cohorts import roles
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.evaluation import same_patient

SCHEMA = Schema(
  (
    Attribute('age', low=0, high=100),
    Attribute('phase', 'categorical', categories=('ES', 'ED')),
  )
)
SECTION = ConfigDict(
  {
    'within_patient': {
      'same': ({'name': 'muscle', 'kind': 'volume', 'classes': (2,)},),
      'ejection': ({'name': 'EF', 'classes': (1,), 'by': 'phase'},),
    },
    'num_bootstrap': 50,
  }
)
MARKS = roles.mark('public'), roles.mark('public', 'test')
NUM = 12


class Intensities:
  """Sees class 1 at 0.5 and class 2 at 1."""

  measures = True

  def labels(self, volumes):
    return np.round(2 * np.asarray(volumes)[..., 0]).astype(np.uint8)


def hearts(cavities, muscles):
  """(n,1,12,20,1): as many voxels of cavity and of muscle as are asked for."""
  x = np.zeros((len(cavities), 240), np.float32)
  for image, cavity, muscle in zip(x, cavities, muscles, strict=True):
    image[:cavity] = 0.5
    image[100 : 100 + muscle] = 1
  return x.reshape(-1, 1, 12, 20, 1)


class Cohort:
  """Patients at end-diastole and end-systole, as a prepared cohort has them."""

  spacing_mm = np.array([10.0, 10.0, 10.0])

  def __init__(self, diastole, systole, muscles):
    cavities = np.stack([diastole, systole], 1).ravel()
    self._x = hearts(cavities, np.repeat(muscles, 2))
    self.patients = [f'p{i // 2}' for i in range(len(cavities))]
    self.visits, self.phases = [''] * len(cavities), ['ED', 'ES'] * len(diastole)
    self.attributes = np.array([[0.2, 1], [0.2, 0]] * len(diastole), np.float32)

  def __len__(self):
    return len(self._x)

  def volumes(self, rows):
    return self._x[rows]


def cohort(shift=0):
  sizes = np.arange(NUM)
  return Cohort(60 + sizes, 20 + 2 * sizes + shift, 30 + 3 * sizes)


def figures(of, order=slice(None), changed=('phase',), section=SECTION):
  """Samples that are the volumes of a cohort beside `cohort()`."""
  samples = {
    'volumes': of.volumes(np.arange(len(of)))[order],
    'requests': of.attributes,
    'patients': np.arange(len(of)) // 2,
    'within_patient': np.array(changed),
  }
  spacing = np.array([10.0, 10.0, 10.0])
  return same_patient.figures(
    samples, cohort(), Intensities(), section, SCHEMA, spacing, MARKS
  )


def test_samples_that_are_real_patients_are_as_good_as_real_ones():
  found = figures(cohort())
  synthetic, real = (found['same']['muscle'][side] for side in ('synthetic', 'real'))
  assert synthetic['pearson_r'] == pytest.approx(1) and synthetic['n'] == NUM
  likeness = found['likeness']
  assert likeness['synthetic']['value'] == likeness['real']['value']
  assert synthetic['mae'] == 0 and real['pearson_r'] == synthetic['pearson_r']
  ejected = found['ejection']['EF']
  fractions = 100 * (1 - (20 + 2 * np.arange(NUM)) / (60 + np.arange(NUM)))
  assert ejected['synthetic']['value'] == pytest.approx(fractions.mean())
  assert ejected['synthetic']['quantiles'][2] == pytest.approx(np.median(fractions))
  assert ejected['distance']['value'] == 0 < ejected['real_halves']['value']
  assert ejected['inside']['value'] == pytest.approx(1 - 2 / NUM), 'all but the ends'
  assert ejected['distance']['n_synthetic'] == NUM


def test_volumes_of_other_patients_do_not_go_together():
  # The second volume of each patient is that of a patient on the other side.
  order = np.arange(2 * NUM)
  order[1::2] = order[1::2][np.argsort(np.sin(3 * np.arange(NUM)))]
  found = figures(cohort(), order)
  r = found['same']['muscle']['synthetic']
  assert abs(r['pearson_r']) < 0.5 and r['mae'] > 5
  likeness = found['likeness']
  assert likeness['synthetic']['value'] < likeness['real']['value'] < 1


def test_a_heart_that_beats_less_is_as_far_from_real_ones_as_its_fraction_is_lower():
  shifted = figures(cohort(shift=30))['ejection']['EF']
  fractions = 100 * 30 / (60 + np.arange(NUM))
  assert shifted['distance']['value'] == pytest.approx(fractions.mean())
  assert shifted['distance']['low'] > shifted['real_halves']['high']
  assert shifted['inside']['value'] < 0.5
  assert shifted['real'] == figures(cohort())['ejection']['EF']['real']


def test_figures_are_internal_where_they_read_real_patients_and_only_there():
  found = figures(cohort())
  assert found['same']['muscle']['synthetic']['internal'] is False
  assert found['same']['muscle']['real']['internal'] is True
  parts = found['ejection']['EF']
  assert {name for name, part in parts.items() if part['internal']} == {
    *('real', 'distance', 'real_halves', 'inside')
  }


def test_without_two_phases_there_is_no_ejection_fraction():
  found = figures(cohort(), changed=('age',))
  assert found == {}, 'nobody is there at two ages'
  few = ConfigDict({'within_patient': {'same': (), 'ejection': ()}, 'num_bootstrap': 9})
  assert set(figures(cohort(), section=few)) == {'likeness'}


def test_a_patient_s_pair_is_the_lowest_and_the_highest_value():
  codes = [0.3, -1, 0.9, np.nan, 0.1, 0.1, 0.5]
  first, last = same_patient.pairs(list('aaaabbc'), codes)
  assert first.tolist() == [1] and last.tolist() == [2]
  first, last = same_patient.pairs(list('ab'), [np.nan, 1])
  assert len(first) == len(last) == 0


def test_real_phases_are_paired_within_a_visit_and_visits_within_a_phase():
  def split(**parts):
    return type('Split', (), {'patients': list('aaaabbbb'), **parts})

  visits, phases = list('11221122'), list('DSDSDSDS')
  both = split(visits=visits, phases=phases)
  first, last = same_patient.real_pairs(both, [1, 0] * 4)
  assert [visits[i] for i in first] == [visits[i] for i in last] == ['1', '1']
  ages = [0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 0.4, 0.4]
  first, last = same_patient.real_pairs(both, ages)
  assert first.tolist() == [0, 6] and last.tolist() == [2, 4]


def test_an_empty_cavity_ejects_nothing_that_counts():
  found = same_patient.ejection_fraction([100, 0, np.nan, 80], [40, 0, 3, 80])
  assert found.tolist() == [60, 0]
