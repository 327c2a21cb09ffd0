"""Who the patients of the chest phantom are: identity and attributes, drawn apart.

Every number is a constant of the phantom and public, for both sites. A cardiothoracic
ratio above 0.5 counts as an enlarged heart on a posteroanterior film.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.phantom.draws import check_draw, generator

SEXES = ('F', 'M')
SCHEMA = Schema(
  (
    Attribute('age', low=18, high=95, unit='years'),
    Attribute('sex', 'categorical', categories=SEXES),
    # Largest width of the heart by the largest inner width of the chest.
    Attribute('cardiothoracic_ratio', low=0.3, high=0.75),
    # Share of a lung's height that fluid fills, on the patient's own side.
    Attribute('effusion', low=0, high=0.6),
    Attribute('consolidation', 'categorical', categories=('no', 'yes')),
  )
)


@dataclasses.dataclass(frozen=True)
class Population:
  """Distribution of the patients of one site; pairs are (mean, deviation)."""

  age: tuple[float, float]
  male: float  # shares from here on
  ratio: tuple[float, float]  # at 50 years
  effusion: float
  consolidation: float


# An outpatient clinic and a hospital's wards.
POPULATIONS = {
  'public': Population((50, 16), 0.5, (0.45, 0.035), 0.15, 0.12),
  'private': Population((66, 12), 0.55, (0.51, 0.055), 0.45, 0.30),
}


def sample_patient(
  seed: int, index: int, site: str, stream: str = ''
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Draws one patient: (identity, attributes), dicts; the same for the same arguments.

  Args:
    seed, index: non-negative integers.
    site: 'public' or 'private', the population and the apparatus.
    stream: text that separates the draws of cohorts with the same seed.

  Raises:
    ValueError: unknown site, negative seed or index.
  """
  check_draw(seed, index, site, POPULATIONS)
  rng = generator(seed, index, site, stream, 'chest')
  people = POPULATIONS[site]
  normal, uniform = rng.standard_normal, rng.random
  age = float(np.clip(people.age[0] + people.age[1] * normal(), 18, 92))
  ratio = people.ratio[0] + people.ratio[1] * normal() + 0.0006 * (age - 50)
  fluid = 0.04 + 0.4 * uniform() ** 1.5
  attributes = {
    'age': round(age, 1),
    'sex': SEXES[int(uniform() < people.male)],
    'cardiothoracic_ratio': round(float(np.clip(ratio, 0.36, 0.7)), 3),
    'effusion': round(float(fluid), 3) if uniform() < people.effusion else 0.0,
    'consolidation': 'yes' if uniform() < people.consolidation else 'no',
  }
  trimmed = np.clip(normal(8), -2, 2)
  patient = {
    'site': site,
    'width': float(1 + 0.035 * trimmed[0]),
    'height': float(1 + 0.04 * trimmed[1]),
    'fat': float(trimmed[2]),
    'inspiration': float(5 * trimmed[3]),
    'tilt_deg': float(34 + 4 * trimmed[4]),
    'shift_mm': (float(4 * trimmed[5]), float(4 * trimmed[6])),
    'ribs_mm': float(3 * trimmed[7]),
    'fluid_side': int(np.sign(uniform() - 0.5) or 1),
    'patch_side': int(np.sign(uniform() - 0.5) or 1),
    'patch': (float(uniform()), float(uniform()), float(uniform())),
    'gain': float(1 + 0.05 * np.clip(normal(), -2, 2)),
    'form_seed': int(rng.integers(2**62)),
    'texture_seed': int(rng.integers(2**62)),
  }
  return patient, attributes
