"""Cardiac phantom: 3D short-axis stacks with exact masks and volumes.

A patient is drawn from a published population (`population.py`), shaped (`anatomy.py`)
and painted (`appearance.py`); two sites differ in patients and in contrast. One patient
gives two volumes, end-diastole (ED) and end-systole (ES), with the same chest, position
and rotation. Arrays are (d, h, w): apex to base, posterior to anterior, left to right
of the patient (RAS); slices from DEPTH on are zero. Labels: 0 background, 1 cavity of
the left ventricle (papillary muscles included), 2 its muscle, 3 cavity of the right;
the atria above the base and the thin wall of the right ventricle are background.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA
from ldm_jax.data.cohorts.cohort import Cohort, Record
from ldm_jax.data.phantom import draws, fields, source
from ldm_jax.data.phantom.cardiac import anatomy, appearance
from ldm_jax.data.phantom.cardiac.population import Stack, attributes, sample_patient
from ldm_jax.data.phantom.draws import Values

VERSION = 1  # raised whenever the same parameters give another picture
LABELS = ('background', 'lv', 'myocardium', 'rv')
PHASES = ('ED', 'ES')


def render(patient: Values, phase: str, stack: Stack | None = None) -> source.Rendering:
  """Renders the parameters of `sample_patient` at 'ED' or 'ES'.

  Raises:
    ValueError: another phase, or a stack that cannot hold this heart.
  """
  stack = stack or Stack()
  if phase not in PHASES:
    raise ValueError(f'expected phase to be one of {PHASES}, got {phase!r}')
  depth = patient['DEPTH']
  if depth > stack.shape[0]:
    raise ValueError(
      f'expected a stack of at least {depth} slices, got {stack.shape[0]}; draw the '
      'patient with the same stack'
    )
  heart = anatomy.heart(patient, phase, stack)
  image = fields.pool(appearance.paint(heart, patient), heart.refine)
  full = np.zeros(stack.shape, np.float32)
  full[:depth] = appearance.degrade(image, patient, phase, stack.spacing_mm)
  fractions = np.zeros((len(LABELS), *stack.shape), np.float32)
  for label, part in enumerate((heart.lv, heart.muscle, heart.rv), start=1):
    fractions[label, :depth] = fields.pool(part, heart.refine)
  fractions[0] = 1 - fractions[1:].sum(0)
  return source.rendering(full, fractions, LABELS, stack.voxel_ml, stack.affine)


@dataclasses.dataclass(frozen=True)
class PhantomSource(source.RenderedSource):
  """A volume that is rendered when it is read."""

  phase: str
  stack: Stack
  version: ClassVar = VERSION

  def rendered(self) -> source.Rendering:
    patient = sample_patient(self.seed, self.index, self.site, self.stack, self.stream)
    return render(patient, self.phase, self.stack)


def cohort(
  name: str,
  num_patients: int,
  seed: int = 0,
  site: str = 'public',
  shape: tuple[int, ...] = (13, 96, 96),
  spacing_mm: tuple[float, ...] = (10.0, 1.83, 1.83),
) -> Cohort:
  """Cohort of `num_patients` patients with two records each, ED and ES.

  The name is the prefix of the patients' ids ('public-P00012') and part of their seed,
  so that cohorts with different names share no patient.

  Raises:
    ValueError: fewer than one patient, an unknown site or an impossible stack.
  """
  draws.check_counts('cardiac', name, num_patients=num_patients)
  stack = Stack(shape, spacing_mm)
  records = []
  for index in range(num_patients):
    patient = sample_patient(seed, index, site, stack, name)
    for phase in PHASES:
      records.append(
        Record(
          id=f'{draws.patient_id(name, index)}_{phase}',
          patient=draws.patient_id(name, index),
          phase=phase,
          source=PhantomSource(seed, index, site, name, phase, stack),
          attributes=attributes(patient, phase),
        )
      )
  return Cohort(name, CARDIAC_SCHEMA, tuple(records))


def population(
  seed: int,
  num: int,
  site: str = 'public',
  shape: tuple[int, ...] = (13, 96, 96),
  spacing_mm: tuple[float, ...] = (10.0, 1.83, 1.83),
) -> list[dict[str, Any]]:
  """Attributes of `num` new patients, each at one phase: requests for sampling.

  Drawn from the published constants of the site with a seed of its own: they belong to
  no patient of any cohort and cost no privacy.
  """
  stack = Stack(shape, spacing_mm)
  requests = []
  for index in range(num):
    patient = sample_patient(seed, index, site, stack, draws.REQUESTS)
    phase = PHASES[int(draws.generator(seed, index, '\0phase').integers(2))]
    requests.append(attributes(patient, phase))
  return requests
