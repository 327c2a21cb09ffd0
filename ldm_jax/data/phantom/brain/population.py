"""Who the subjects of the brain phantom are, and what age and disease do to a brain.

Identity (drawn once a subject, changed by nothing) and attributes (age, sex, diagnosis)
are apart: `brain_of` is the causal mechanism, attributes + identity -> sizes in mm and
ml. Every number is a constant of the phantom and public, for both sites.

Facts the slopes follow:
[Scahill03] Arch Neurol 60:989: ventricles grow faster the older a healthy person is.
[Tang01] J Neuroimaging 11:393: +5.6 % a year (deviation 3.6) at 74-87 years.
[Bradley02] Br J Radiol 75:506: ventricle to brain +4.3 % a year, +15.6 % in AD.
[Barnes09] Neurobiol Aging 30:1711: hippocampus -1.41 % a year, -4.66 % in AD.
[Storsve14] J Neurosci 34:8488: cortical thickness -0.35 % a year, 23-87 years.
[Fotenos05] Neurology 64:1032: brain -0.45 % a year over 65, -0.98 % in AD.
Diagnoses: CN cognitively normal, MCI mild cognitive impairment, AD Alzheimer's disease.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.phantom.draws import Values, check_attributes, check_draw, generator

DIAGNOSES = ('CN', 'MCI', 'AD')
SEXES = ('F', 'M')
STAGE = {'CN': 0.0, 'MCI': 0.45, 'AD': 1.0}
PACE = 0.13  # of the disease, a year after its onset
# Annual share of the impaired who decline further between visits.
CONVERSION = {'CN': 0.03, 'MCI': 0.12, 'AD': 0.0}
AGES = (20.0, 95.0)

SCHEMA = Schema(
  (
    Attribute('age', low=AGES[0], high=AGES[1], unit='years'),
    Attribute('sex', 'categorical', categories=SEXES),
    Attribute('diagnosis', 'categorical', categories=DIAGNOSES),
  )
)
# Effects of the three above; a schema may name them too, and then they are set, not
# followed: an intervention on an effect cuts it off from its causes.
EFFECTS = Schema(
  (
    Attribute('ventricles_ml', low=0, high=120, unit='ml'),
    Attribute('hippocampi_ml', low=0, high=10, unit='ml'),
    Attribute('cortex_mm', low=1, high=6, unit='mm'),
  )
)


@dataclasses.dataclass(frozen=True)
class Population:
  """Distribution of the subjects of one site; pairs are (mean, deviation)."""

  age: tuple[float, float]
  male: float  # share of men
  diagnoses: tuple[float, float, float]  # shares of CN, MCI, AD


POPULATIONS = {
  'public': Population((58, 15), 0.45, (0.70, 0.18, 0.12)),
  'private': Population((74, 7), 0.52, (0.35, 0.33, 0.32)),
}


def sample_subject(
  seed: int, index: int, site: str, stream: str = ''
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Draws one subject: identity, and the attributes at the first visit.

  Args:
    seed, index: non-negative integers.
    site: 'public' or 'private', the population and the scanner.
    stream: text that separates the draws of cohorts with the same seed.

  Returns:
    (subject, attributes): dicts. The subject's random entries are deviations in units
    of the population's, so that they stay the same when an attribute changes.

  Raises:
    ValueError: unknown site, negative seed or index.
  """
  check_draw(seed, index, site, POPULATIONS)
  rng = generator(seed, index, site, stream, 'brain')
  people = POPULATIONS[site]
  normal, uniform = rng.standard_normal, rng.random
  age = float(np.clip(people.age[0] + people.age[1] * normal(), AGES[0] + 2, 88))
  attributes = {
    'age': round(age, 1),
    'sex': SEXES[int(uniform() < people.male)],
    'diagnosis': DIAGNOSES[
      int(np.searchsorted(np.cumsum(people.diagnoses[:2]), uniform()))
    ]
    if age > 50
    else 'CN',  # an early onset is rare enough to be left out
  }
  trimmed = np.clip(normal(6), -2.2, 2.2)
  subject = {
    'site': site,
    'head': float(trimmed[0]),
    'ventricles': float(trimmed[1]),
    'hippocampi': float(trimmed[2]),
    'cortex': float(trimmed[3]),
    'atrophy': float(trimmed[4]),
    'asymmetry': float(0.03 + 0.04 * trimmed[5]),
    # When the disease, if there is or were one, began.
    'onset_age': round(age - float(uniform() * 3.5 + 0.5), 2),
    'shape': tuple(np.clip(0.025 * normal(3), -0.05, 0.05).tolist()),
    'shift_mm': tuple(np.clip(1.2 * normal(3), -2.5, 2.5).tolist()),
    'turn_deg': tuple(np.clip(2.5 * normal(3), -5, 5).tolist()),
    'gain': float(1 + 0.05 * np.clip(normal(), -2, 2)),
    'decline': float(uniform()),
    'form_seed': int(rng.integers(2**62)),
    'texture_seed': int(rng.integers(2**62)),
  }
  return subject, attributes


def at_visit(subject: Values, attributes: Values, years: float) -> dict[str, Any]:
  """Attributes at a later visit: older, and perhaps further declined.

  Args:
    subject, attributes: of `sample_subject`, at the first visit.
    years: since then; ages stop at the upper end of the schema.
  """
  diagnosis = attributes['diagnosis']
  if subject['decline'] < 1 - (1 - CONVERSION[diagnosis]) ** years:
    diagnosis = DIAGNOSES[DIAGNOSES.index(diagnosis) + 1]
  age = round(min(attributes['age'] + years, AGES[1]), 2)
  return {**attributes, 'age': age, 'diagnosis': diagnosis}


def severity(subject: Values, attributes: Values) -> float:
  """0 for CN, the stage at onset for MCI and AD, growing with the years since."""
  years = np.clip(attributes['age'] - subject['onset_age'], 0, 8)
  return STAGE[attributes['diagnosis']] * (1 + PACE * float(years))


def brain_of(subject: Values, attributes: Values) -> dict[str, float]:
  """Sizes that follow from identity and attributes: the structural equations.

  Args:
    subject: identity, of `sample_subject`.
    attributes: age, sex, diagnosis; an effect among them (`ventricles_ml`,
      `hippocampi_ml`, `cortex_mm`) replaces its equation.

  Returns:
    dict: intracranial_ml; ventricles_ml (lateral), hippocampi_ml (both), cortex_mm;
    gap_mm, the layer of CSF under the skull; sulcus_mm and fissure_mm, half the width
    of a sulcus and of the large fissures.

  Raises:
    ValueError: an age out of range, an unknown category or attribute, or a size that is
      not positive.
  """
  check_attributes('brain', attributes, SCHEMA, EFFECTS)
  age, sick = float(attributes['age']), severity(subject, attributes)
  late = max(age - 50, 0)
  # Men's heads hold an eighth more.
  intracranial = (1500 if attributes['sex'] == 'M' else 1335) * np.exp(
    0.07 * subject['head']
  )
  size = intracranial / 1417
  pace = 1 + 0.15 * subject['atrophy']
  ventricles = (
    13.5
    * size
    * np.exp(
      0.30 * subject['ventricles']
      + pace * (0.008 * (age - 30) + 0.0005 * late**2)
      + 0.36 * sick
    )
  )
  hippocampi = (
    7.0
    * size**0.6
    * np.exp(
      0.08 * subject['hippocampi']
      - pace * (0.002 * (age - 30) + 0.00025 * late**2)
      - 0.22 * sick
    )
  )
  cortex = 3.6 * np.exp(0.04 * subject['cortex'] - 0.0035 * (age - 30) - 0.05 * sick)
  wear = pace * (0.006 * (age - 30) + 0.00022 * late**2) + 0.22 * sick
  wear = float(np.log1p(np.exp(4 * wear)) / 4)  # positive for the young, too
  return {
    'intracranial_ml': float(intracranial),
    'ventricles_ml': float(attributes.get('ventricles_ml', ventricles)),
    'hippocampi_ml': float(attributes.get('hippocampi_ml', hippocampi)),
    'cortex_mm': float(attributes.get('cortex_mm', cortex)),
    # The room that a young hippocampus of this subject fills.
    'hippocampal_room_ml': float(
      7.4 * size**0.6 * np.exp(0.08 * subject['hippocampi'])
    ),
    'gap_mm': 0.4 + 1.9 * wear,
    'sulcus_mm': 0.25 + 1.0 * wear,
    'fissure_mm': 0.6 + 2.0 * wear,
  }


def known_attributes(subject: Values, attributes: Values) -> dict[str, Any]:
  """The attributes of a record: causes and their effects, rounded."""
  brain = brain_of(subject, attributes)
  effects = {name: round(brain[name], 3) for name in EFFECTS.names}
  return {**attributes, **effects}
