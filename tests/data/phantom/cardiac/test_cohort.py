"""Laws of the cardiac phantom as a cohort of stacks."""

import dataclasses
import time

import numpy as np
import pytest

from ldm_jax.data.cohorts import cohort as cohorts
from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA
from ldm_jax.data.phantom.cardiac import cohort as cardiac
from ldm_jax.data.phantom.cardiac.cohort import render
from ldm_jax.data.phantom.cardiac.population import Stack, sample_patient
from tests.data.phantom.renderings import (
  COARSE,
  FULL,
  SMALL,
  heart,
  patients_and_hearts,
)


def test_volumes_reported_are_the_sum_of_the_fractions():
  rendered = heart(0, 'public', 'ED')
  for label, name in enumerate(cardiac.LABELS[1:], start=1):
    ml = rendered.fractions[label].sum(dtype=np.float64) * FULL.voxel_ml
    assert rendered.volumes_ml[name] == pytest.approx(ml)


def test_fractions_are_disjoint_shares_and_labels_the_largest_one():
  for _, rendered in patients_and_hearts(3, 'ES', SMALL):
    assert rendered.fractions.min() >= 0
    np.testing.assert_allclose(rendered.fractions.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(rendered.labels, rendered.fractions.argmax(0))
    assert set(np.unique(rendered.labels)) == {0, 1, 2, 3}


@pytest.mark.parametrize('phase', cardiac.PHASES)
def test_slices_from_depth_on_are_zero_and_the_others_are_not(phase):
  for patient, rendered in patients_and_hearts(4, phase, SMALL):
    depth = patient['DEPTH']
    assert not rendered.image[depth:].any() and not rendered.labels[depth:].any()
    assert (rendered.image[:depth] > 0).mean((1, 2)).min() > 0.99


def test_the_same_arguments_give_the_same_bits_and_others_do_not():
  first, again = (
    render(sample_patient(3, 7, 'private', SMALL), 'ES', SMALL) for _ in range(2)
  )
  np.testing.assert_array_equal(first.image, again.image)
  np.testing.assert_array_equal(first.fractions, again.fractions)
  base = sample_patient(3, 7, 'private', SMALL)
  for other in ((4, 7, 'private'), (3, 8, 'private'), (3, 7, 'public')):
    assert sample_patient(*other, SMALL)['texture_seed'] != base['texture_seed']
  stream = sample_patient(3, 7, 'private', SMALL, 'b')
  assert stream['texture_seed'] != base['texture_seed']


def test_a_cohort_holds_two_readable_records_of_every_patient():
  cohort = cardiac.cohort('public', 3, 0, 'public', SMALL.shape, SMALL.spacing_mm)
  assert len(cohort) == 3 and cohort.schema is CARDIAC_SCHEMA
  assert [r.id for r in cohort.records[:2]] == ['public-P00000_ED', 'public-P00000_ES']
  for records in cohort.patients.values():
    assert [record.attributes['ESED'] for record in records] == [1, 0]
    for record in records:
      image, labels = record.source.read()
      assert image.array.shape == labels.array.shape == SMALL.shape
      np.testing.assert_array_equal(image.affine, SMALL.affine)
      ml = (labels.array == 1).sum() * SMALL.voxel_ml
      assert ml == pytest.approx(record.attributes[f'LV{record.phase}V'], rel=0.1)


def test_cohorts_of_different_name_share_neither_patients_nor_draws():
  made = {name: cardiac.cohort(name, 20) for name in ('public', 'private', 'test')}
  cohorts.check_disjoint(made)
  drawn = [
    tuple(record.attributes.items())
    for cohort in made.values()
    for record in cohort.records
  ]
  requests = [tuple(row.items()) for row in cardiac.population(0, 40)]
  assert len(set(drawn + requests)) == len(drawn) + len(requests)


def test_a_longer_cohort_begins_with_the_shorter_one():
  short, long = cardiac.cohort('a', 2), cardiac.cohort('a', 5)
  assert long.records[:4] == short.records


def test_the_fingerprint_changes_with_everything_the_volume_depends_on():
  source = cardiac.PhantomSource(0, 0, 'public', 'a', 'ED', SMALL)
  changes = {
    'seed': 1,
    'index': 1,
    'site': 'private',
    'stream': 'b',
    'phase': 'ES',
    'stack': COARSE,
  }
  others = [
    dataclasses.replace(source, **{name: value}).fingerprint()
    for name, value in changes.items()
  ]
  again = cardiac.PhantomSource(
    0, 0, 'public', 'a', 'ED', Stack((12, 48, 48), (10, 3.66, 3.66))
  )
  assert len({source.fingerprint(), *others}) == 7
  assert again.fingerprint() == source.fingerprint()


@pytest.mark.parametrize(
  'call',
  [
    lambda: sample_patient(0, 0, 'elsewhere'),
    lambda: sample_patient(-1, 0, 'public'),
    lambda: sample_patient(0, 0, 'public', Stack((4, 48, 48), (10, 3.66, 3.66))),
    lambda: Stack((13, 96), (10, 1.83)),
    lambda: Stack((13, 96, 96), (10, 0, 1.83)),
    lambda: render(sample_patient(0, 0, 'public'), 'end-diastole'),
    lambda: render(sample_patient(0, 0, 'public'), 'ED', Stack((6, 96, 96))),
    lambda: render(sample_patient(0, 0, 'public'), 'ED', Stack((13, 12, 12))),
    lambda: cardiac.cohort('public', 0),
  ],
)
def test_what_cannot_be_drawn_is_refused_by_name(call):
  with pytest.raises(ValueError, match=r'expected|same stack'):
    call()


def test_a_small_volume_renders_in_milliseconds():
  patient = sample_patient(0, 0, 'public', SMALL)
  seconds = []
  for _ in range(10):
    start = time.thread_time()
    render(patient, 'ED', SMALL)
    seconds.append(time.thread_time() - start)
  assert min(seconds) < 0.05  # about 0.004 of processor time
