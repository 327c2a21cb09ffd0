"""Cardiac phantom: 3D short-axis stacks with exact masks and volumes.

A patient is drawn from a published population (`population.py`), shaped (`anatomy.py`)
and painted (`appearance.py`); two sites differ in patients and in contrast. One patient
gives two volumes, end-diastole (ED) and end-systole (ES), with the same chest, position
and rotation. Arrays are (d, h, w): apex to base, posterior to anterior, left to right
of the patient (RAS); slices from DEPTH on are zero. Labels: 0 background, 1 cavity of
the left ventricle (papillary muscles included), 2 its muscle, 3 cavity of the right;
the atria above the base and the thin wall of the right ventricle are background.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np

from ldm_jax.data.cohorts import attributes as schemas
from ldm_jax.data.cohorts import cohort as cohorts
from ldm_jax.data.phantom import source
from ldm_jax.data.phantom.cardiac import anatomy, appearance
from ldm_jax.data.phantom.cardiac.population import (
  Stack,
  attributes,
  generator,
  sample_patient,
)

VERSION = 1  # raised whenever the same parameters give another picture
LABELS = ('background', 'lv', 'myocardium', 'rv')
PHASES = ('ED', 'ES')


class Rendered(NamedTuple):
  """One volume of one patient."""

  image: np.ndarray  # (d, h, w) float32, about [0, 1]
  labels: np.ndarray  # (d, h, w) uint8, the largest fraction
  fractions: np.ndarray  # (4, d, h, w) float32, sum 1 over LABELS
  volumes_ml: dict  # LABELS[1:] -> ml, the sum of the fractions
  affine: np.ndarray  # (4, 4) index (d, h, w, 1) -> world RAS mm


def render(patient, phase, stack=None):
  """Renders the parameters of `sample_patient` at 'ED' or 'ES'.

  Raises ValueError for another phase, or a stack that cannot hold this heart.
  """
  stack = stack or Stack()
  if phase not in PHASES:
    raise ValueError(f'phase={phase!r}; one of {PHASES} is required')
  depth = patient['DEPTH']
  if depth > stack.shape[0]:
    raise ValueError(
      f'a patient with {depth} slices came for a stack of {stack.shape[0]}; draw the '
      'patient with the same stack'
    )
  heart = anatomy.heart(patient, phase, stack)
  image = anatomy.pool(appearance.paint(heart, patient), heart.refine)
  real = appearance.degrade(image, patient, phase, stack.spacing_mm)
  fractions = np.zeros((4, *stack.shape), np.float32)
  for label, part in enumerate((heart.lv, heart.muscle, heart.rv), start=1):
    fractions[label, :depth] = anatomy.pool(part, heart.refine)
  fractions[0] = 1 - fractions[1:].sum(0)
  full = np.zeros(stack.shape, np.float32)
  full[:depth] = real
  totals = fractions[1:].sum((1, 2, 3), dtype=np.float64) * stack.voxel_ml
  return Rendered(
    full,
    fractions.argmax(0).astype(np.uint8),
    fractions,
    dict(zip(LABELS[1:], totals.tolist(), strict=True)),
    stack.affine,
  )


@dataclasses.dataclass(frozen=True)
class PhantomSource(source.Rendered):
  """A volume that is rendered when it is read."""

  seed: int
  index: int
  site: str
  stream: str
  phase: str
  stack: Stack
  version: ClassVar = VERSION

  def rendered(self):
    patient = sample_patient(self.seed, self.index, self.site, self.stack, self.stream)
    return render(patient, self.phase, self.stack)


def cohort(
  name,
  num_patients,
  seed=0,
  site='public',
  shape=(13, 96, 96),
  spacing_mm=(10.0, 1.83, 1.83),
):
  """Cohort of `num_patients` patients with two records each, ED and ES.

  The name separates cohorts: it is the prefix of the patients ('public-P00012') and
  seeds their draws, so that cohorts of different name share no patient.
  Raises ValueError for fewer than one patient, an unknown site or an impossible stack.
  """
  if num_patients < 1:
    raise ValueError(
      f'num_patients={num_patients} of the cardiac phantom {name!r}; at least 1 is '
      'required; change the phantom section of the config'
    )
  stack = Stack(shape, spacing_mm)
  records = []
  for index in range(num_patients):
    patient = sample_patient(seed, index, site, stack, name)
    for phase in PHASES:
      records.append(
        cohorts.Record(
          id=f'{name}-P{index:05d}_{phase}',
          patient=f'{name}-P{index:05d}',
          phase=phase,
          source=PhantomSource(seed, index, site, name, phase, stack),
          attributes=attributes(patient, phase),
        )
      )
  return cohorts.Cohort(name, schemas.CARDIAC_SCHEMA, tuple(records))


def population(
  seed, num, site='public', shape=(13, 96, 96), spacing_mm=(10.0, 1.83, 1.83)
):
  """`num` attribute dicts of new patients, each at one phase: requests for sampling.

  Drawn from the published constants of the site in a stream of its own, so they belong
  to no patient of any cohort and cost no privacy.
  """
  stack = Stack(shape, spacing_mm)
  requests = []
  for index in range(num):
    patient = sample_patient(seed, index, site, stack, '\0requests')
    phase = PHASES[int(generator(seed, index, '\0phase').integers(2))]
    requests.append(attributes(patient, phase))
  return requests
