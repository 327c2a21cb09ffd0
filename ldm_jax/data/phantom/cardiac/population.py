"""Published population of the cardiac phantom: (seed, index, site) -> one patient.

Every number below is a constant of the phantom and public, for both sites: drawing
from it (say, the requests of a sampling run) reveals nothing about any cohort.
Volumes follow sex and body surface area, the end-systolic wall follows from the
conservation of myocardial mass, ejection fractions follow from the volumes.
Units: ml, mm, years, kg/m^2, degrees, slices.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ldm_jax.data.phantom.draws import Values, check_draw, generator
from ldm_jax.data.phantom.grids import VolumeGrid

EQUATOR = 0.75  # height of the widest slice, as a fraction of the LV long axis
APEX_WALL = 0.6  # wall at the apex, as a fraction of the wall at the equator


@dataclasses.dataclass(frozen=True)
class Stack(VolumeGrid):
  """Grid of a short-axis stack: slices run from apex to base, rows to anterior."""

  shape: tuple[int, ...] = (13, 96, 96)
  spacing_mm: tuple[float, ...] = (10.0, 1.83, 1.83)


@dataclasses.dataclass(frozen=True)
class Population:
  """Distribution of the patients of one site; each pair is (mean, deviation)."""

  age: tuple[float, float]
  bmi: tuple[float, float]
  male: float  # share of men
  dilated: float  # share with a large, weak left ventricle
  hypertrophic: float  # share with a thick wall
  ejection: tuple[float, float]  # LVEF of the healthy, %


POPULATIONS = {
  'public': Population((50, 14), (25.0, 3.6), 0.5, 0.08, 0.08, (61, 5.5)),
  'private': Population((64, 9), (27.5, 4.2), 0.56, 0.22, 0.22, (58, 6.5)),
}


def sample_patient(
  seed: int, index: int, site: str, stack: Stack | None = None, stream: str = ''
) -> dict[str, Any]:
  """Draws the parameters of one patient, the same for the same arguments.

  Args:
    seed, index: non-negative integers; patients of different index are independent.
    site: 'public' or 'private', the population.
    stack: Stack that has to hold the heart (its height bounds the long axis).
    stream: text that separates the draws of cohorts with the same seed.

  Returns:
    dict: the attributes of the patient in capitals (13 of the 14; ESED belongs to a
    volume), in small letters what an image shows beyond them.

  Raises:
    ValueError: unknown site, negative seed or index, stack too low for a heart.
  """
  stack = stack or Stack()
  check_draw(seed, index, site, POPULATIONS)
  rng = generator(seed, index, site, stream)
  people = POPULATIONS[site]
  normal, uniform = rng.standard_normal, rng.random

  sex = int(uniform() < people.male)
  age = float(np.clip(people.age[0] + people.age[1] * normal(), 20, 85))
  bmi = float(np.clip(people.bmi[0] + people.bmi[1] * normal(), 17, 42))
  height = (176 if sex else 163) + 6.5 * normal()
  surface = np.sqrt(height**3 * bmi / 3.6e7)  # m^2, Mosteller's formula, height in cm
  healthy = surface * (80 if sex else 74) * np.exp(0.15 * normal())
  healthy *= 1 - 0.003 * (age - 50)
  ejection = people.ejection[0] + people.ejection[1] * normal()
  wall = (7.4 if sex else 6.3) + 0.7 * normal() + 0.02 * (age - 50) + 0.06 * (bmi - 25)

  disease, severity = uniform(), uniform()
  dilated = disease < people.dilated
  thick = not dilated and disease < people.dilated + people.hypertrophic
  lvedv = healthy
  if dilated:
    lvedv, ejection = healthy * (1.25 + 0.4 * severity), 46 - 20 * severity
  if thick:
    lvedv, ejection, wall = 0.93 * healthy, ejection + 3, wall + 2.5 + 3.5 * severity
  lvedv = round(float(np.clip(lvedv, 70, 300)), 2)
  lvesv = round(lvedv * (1 - float(np.clip(ejection, 20, 76)) / 100), 2)
  wall = round(float(np.clip(wall, 4.5, 14.5)), 2)

  rvedv = round(float(np.clip(healthy * np.exp(0.1 * normal()), 70, 260)), 2)
  stroke = (lvedv - lvesv) * np.exp(0.06 * normal())
  rvesv = round(rvedv * (1 - float(np.clip(stroke / rvedv, 0.28, 0.72))), 2)

  # Long axis, and as many slices as it needs, or as long as the slices allow.
  slice_mm = stack.spacing_mm[0]
  long_axis = 16.0 * lvedv ** (1 / 3) * np.exp(0.035 * normal())
  long_axis *= (1 - 0.001 * (age - 50)) * (0.95 if dilated else 1)
  margin, spare = 1 + 6 * uniform(), int(uniform() < 0.5)
  needed = int(np.ceil((margin + APEX_WALL * wall + long_axis) / slice_mm))
  depth = min(needed + spare, stack.shape[0])
  if needed > depth:
    margin = 1.0
    long_axis = min(long_axis, depth * slice_mm - margin - APEX_WALL * wall)
  if depth < 5 or long_axis < 40:
    raise ValueError(
      f'cardiac phantom: expected at least 5 slices and 60 mm to hold a heart, got '
      f'{stack.shape[0]} slices of {slice_mm:g} mm; change shape or spacing_mm in the '
      'options of the data section'
    )
  # The base moves towards the apex, more so in a strong heart.
  short_axis = long_axis * (1 - 0.27 * (1 - lvesv / lvedv))
  mass = 1 + 0.04 * normal()
  return {
    'LVEDV': lvedv,
    'LVESV': lvesv,
    'LVEF': round(100 * (1 - lvesv / lvedv), 2),
    'RVEDV': rvedv,
    'RVESV': rvesv,
    'RVEF': round(100 * (1 - rvesv / rvedv), 2),
    'MYOESTHICK': _systolic_wall(lvedv, lvesv, wall, long_axis, short_axis, mass),
    'MYOEDTHICK': wall,
    'AGE': round(age, 1),
    'SEX': sex,
    'BMI': round(bmi, 2),
    'ANGLE': round(float(np.clip(15 * normal(), -45, 45)), 1),
    'DEPTH': depth,
    'site': site,
    'long_axis_mm': {'ED': float(long_axis), 'ES': float(short_axis)},
    'apex_mm': float(margin),
    'centre_mm': tuple(4.0 * np.clip(normal(2), -2, 2)),
    'tilt': tuple(0.06 * normal(2)),
    'septum_deg': float(28 + 6 * normal()),
    'ovality': tuple(np.abs(0.03 * normal(2))),
    'ovality_deg': tuple(360 * uniform(2)),
    'papillary_deg': tuple(np.array([130, 240]) + 8 * normal(2)),
    'gain': float(1 + 0.05 * normal()),
    'texture_seed': int(rng.integers(2**62)),
  }


def attributes(patient: Values, phase: str) -> dict[str, Any]:
  """The 14 named attributes of one volume ('ED' or 'ES') of a patient."""
  named = {name: value for name, value in patient.items() if name.isupper()}
  return named | {'ESED': int(phase == 'ED')}


def equator_radius(
  volume_ml: float, long_axis_mm: float, apex_mm: float = 0.0
) -> float:
  """Widest radius of a truncated ellipsoid of this volume and length, mm."""
  return float(np.sqrt(volume_ml * 1000 / _unit_volume(long_axis_mm, apex_mm)))


def _unit_volume(long_axis_mm, apex_mm):
  """Volume per squared equatorial radius; apex_mm lengthens the part below."""
  below = EQUATOR * long_axis_mm + apex_mm
  above = (1 - EQUATOR) * long_axis_mm
  return np.pi * (2 / 3 * below + above - above**3 / (3 * below**2))


def _epicardial_ml(volume_ml, wall, long_axis_mm):
  radius = equator_radius(volume_ml, long_axis_mm) + wall
  return radius**2 * _unit_volume(long_axis_mm, APEX_WALL * wall) / 1000


def _systolic_wall(lvedv, lvesv, wall, long_axis_mm, short_axis_mm, mass):
  """Wall at the end of systole that keeps `mass` times the muscle's volume, mm."""
  muscle = mass * (_epicardial_ml(lvedv, wall, long_axis_mm) - lvedv)
  low, high = wall + 0.3, 24.0  # the clinical range ends here
  for _ in range(30):
    middle = (low + high) / 2
    if _epicardial_ml(lvesv, middle, short_axis_mm) - lvesv < muscle:
      low = middle
    else:
      high = middle
  return round((low + high) / 2, 2)
