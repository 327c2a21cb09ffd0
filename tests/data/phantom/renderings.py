"""Phantom scans that several tests look at, each rendered once."""

import functools

from ldm_jax.data.phantom.brain import cohort as brains
from ldm_jax.data.phantom.brain.population import sample_subject
from ldm_jax.data.phantom.cardiac import cohort as hearts
from ldm_jax.data.phantom.cardiac.population import Stack, sample_patient
from ldm_jax.data.phantom.chest import cohort as chests
from ldm_jax.data.phantom.chest import population as chest_population

VIEW = brains.View((20, 25, 20), (6.8, 6.8, 6.8))
CSF, GREY, WHITE, VENTRICLES, HIPPOCAMPI, HINDBRAIN = range(1, 7)
FULL = Stack((13, 96, 96), (10, 1.83, 1.83))
SMALL = Stack((12, 48, 48), (10, 3.66, 3.66))
COARSE = Stack((12, 32, 32), (10, 5.5, 5.5))
LOW = Stack((8, 32, 32), (10, 5.5, 5.5))
DETECTOR = chests.Detector((1, 64, 64))
LUNGS, HEART, EFFUSION, CONSOLIDATION = range(1, 5)
HEALTHY = {'effusion': 0.0, 'consolidation': 'no', 'cardiothoracic_ratio': 0.45}


@functools.cache
def brain(index, site='public', **changes):
  subject, attributes = sample_subject(7, index, site)
  return brains.render(subject, {**attributes, **changes}, VIEW)


@functools.cache
def patient(index, site, stack=FULL):
  return sample_patient(5, index, site, stack)


@functools.cache
def heart(index, site, phase, stack=FULL):
  return hearts.render(patient(index, site, stack), phase, stack)


def patients_and_hearts(num, phase, stack=FULL):
  """(parameters, rendering) of `num` patients of either site."""
  return [
    (patient(index, site, stack), heart(index, site, phase, stack))
    for site in ('public', 'private')
    for index in range(num)
  ]


@functools.cache
def chest(index, site='public', **changes):
  patient, attributes = chest_population.sample_patient(3, index, site)
  return chests.render(patient, {**attributes, **HEALTHY, **changes}, DETECTOR)
