"""Geometry of the chest phantom: outlines of what a frontal radiograph projects.

Coordinates (x, y) in mm of the picture: x to the right, the patient's left; y
downwards; the middle of the picture is (0, 0). Distances are < 0 inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ldm_jax.data.phantom import fields
from ldm_jax.data.phantom.draws import Values, generator
from ldm_jax.data.phantom.fields import ellipsoid, smooth_union

MAGNIFIED = 1.17  # on the film, which stands behind the patient
# Inner width of the chest at its widest, mm, and how far it reaches.
WIDTH_MM = {'F': 252.0, 'M': 278.0}
APEX_MM, WIDEST_MM = -142.0, 52.0
OVAL = 0.66  # short by long axis of the heart


class Thorax(NamedTuple):
  """Fine pixels of one chest: distances in mm, (h, w) float32."""

  points: np.ndarray  # (2, h, w)
  width_mm: float  # inner width at the widest
  chest: np.ndarray  # inside of the ribs, both sides
  lungs: np.ndarray  # both lungs as they are without heart and fluid
  heart: np.ndarray
  vessels: np.ndarray  # mediastinum: great vessels, knob of the aorta
  fluid: np.ndarray  # region of the effusion, lungs and more
  patch: np.ndarray  # the consolidation
  side: np.ndarray  # distance to the outer or lower border of a lung, > 0 within
  pixel: float


def build(patient: Values, attributes: Values, axes: Sequence[np.ndarray]) -> Thorax:
  """Builds the chest of a patient on the pixels of `axes` (y, x), mm."""
  axes = [axis / np.float32(MAGNIFIED) for axis in axes]
  pixel = float(abs(axes[0][1] - axes[0][0]))
  y, x = np.meshgrid(*axes, indexing='ij')
  # Lower in the picture and a tenth taller: lungs lie in the middle of the film.
  y = (y - 14 - patient['shift_mm'][1]) / (1.1 * patient['height'])
  x = x - patient['shift_mm'][0]
  x, y = x.astype(np.float32), y.astype(np.float32)
  points = np.stack([x, y])
  width = WIDTH_MM[attributes['sex']] * patient['width']

  lateral = wall(y, width) - np.abs(x)  # to the ribs
  floor = dome(x, width, patient) - y  # to the diaphragm
  root = 26 + 8 * np.clip((y + 20) / 60, 0, 1) - 10 * np.clip((-y - 70) / 70, 0, 1)
  medial = np.abs(x) - root
  border = np.minimum(lateral, floor)
  # Lungs have rounded tops and edges as sharp as a knife below.
  lungs = smooth_union(-lateral, -medial, -14)
  lungs = np.maximum(lungs, -floor)
  chest = np.maximum(-lateral, y - 118)
  return Thorax(
    points,
    width,
    chest,
    lungs,
    heart_outline(points, attributes['cardiothoracic_ratio'] * width, patient),
    great_vessels(points, attributes['age']),
    fluid_level(points, attributes['effusion'], width, patient),
    patch(points, width, patient, axes),
    border,
    pixel,
  )


def wall(y: np.ndarray, width: float) -> np.ndarray:
  """Half the inner width of the chest at a height: widest above the diaphragm."""
  above = np.clip((WIDEST_MM - y) / (WIDEST_MM - APEX_MM), 0, 1)
  below = np.clip((y - WIDEST_MM) / 80, 0, 1)
  return width / 2 * (1 - above**2.9) ** 0.62 * (1 - 0.05 * below**2)


def dome(x: np.ndarray, width: float, patient: Values) -> np.ndarray:
  """Height of the diaphragm, lower on the patient's left and at the sides."""
  away = (np.abs(x) - 0.22 * width) / (0.28 * width)
  left = np.clip(x / 30, -1, 1) * 5
  return 62 + patient['inspiration'] + left + 42 * np.clip(away, -0.7, 1.1) ** 2


def heart_outline(points: np.ndarray, heart_mm: float, patient: Values) -> np.ndarray:
  """Distance to the heart: an oblique oval, `heart_mm` across, on the diaphragm."""
  tilt = np.deg2rad(patient['tilt_deg'])
  c, s = np.cos(tilt), np.sin(tilt)
  long = heart_mm / 2 / np.sqrt(c**2 + (OVAL * s) ** 2)
  short = OVAL * long
  drop = np.sqrt((long * s) ** 2 + (short * c) ** 2)
  x = points[0] - 0.17 * heart_mm
  y = points[1] - (70 + patient['inspiration'] - 0.80 * drop)
  along, across = c * x + s * y, c * y - s * x
  return ellipsoid((along, across), (0, 0), (long, short), 2.15)


def great_vessels(points: np.ndarray, age: float) -> np.ndarray:
  """Distance to the mediastinum; the aorta unfolds with the years."""
  x, y = points
  knob = 13 + 0.14 * (age - 50)
  column = np.maximum(np.abs(x) - 21 - 5 * np.clip((y + 40) / 60, -1, 1), -y - 170)
  column = np.maximum(column, y - 60)
  arch = np.hypot(x - 19, y + 62) - knob
  artery = np.hypot(x - 22, y + 30) - 15
  atrium = ellipsoid(points, (-16, 2), (18, 46))
  found = smooth_union(column, arch, 5)
  found = smooth_union(found, artery, 8)
  return smooth_union(found, atrium, 8)


def fluid_level(
  points: np.ndarray, effusion: float, width: float, patient: Values
) -> np.ndarray:
  """Distance to the fluid of one side: a meniscus that climbs along the ribs."""
  x, y = points
  side = x * patient['fluid_side']
  outwards = np.clip(side / (width / 2), 0, 1)
  # An empty chest has its level just below the deepest angle.
  level = 108 + patient['inspiration'] - effusion * 1.05 * (WIDEST_MM - APEX_MM)
  level = level - (40 * outwards**5 - 12) * np.clip(effusion / 0.1, 0, 1)
  if effusion <= 0:
    return np.full_like(x, 999)
  return np.maximum(level - y, 8 - side)


def patch(
  points: np.ndarray, width: float, patient: Values, axes: Sequence[np.ndarray]
) -> np.ndarray:
  """Distance to where a consolidation lies, or would lie: fluffy, within one lung."""
  where, height, size = patient['patch']
  centre = patient['patch_side'] * (0.27 + 0.08 * where) * width, -55 + 85 * height
  radius = 26 + 14 * size
  rng = generator(patient['form_seed'], 'patch')
  fluff = fields.waves(rng, 45.0, axes=2).on_grid(*axes)
  return ellipsoid(points, centre, (radius, 0.85 * radius)) + 6 * fluff


def ribs(
  width: float, patient: Values
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
  """Paths (x, y, radius) of the right half's ribs: back parts, front parts, clavicle.

  Each rib is a tilted loop around the chest seen from the front: it leaves the spine,
  falls to the side, turns there, and falls on to its cartilage.
  """
  back, front = [], []
  for number in range(10):
    start = -138 + 23.5 * number + patient['ribs_mm']
    fall = 26 + 5.5 * number
    angle = np.linspace(0.06, 0.80 * np.pi, 18)
    y = start + fall * (1 - np.cos(angle)) - 9 * np.sin(angle)
    reach = wall(np.clip(start + fall, APEX_MM + 14, 70), width) + 5
    x = 12 + (reach - 12) * np.sin(angle)
    rows = np.stack([x, y, np.full_like(x, 5.2)], 1)
    turn = np.searchsorted(angle, np.pi / 2)
    back.append(rows[: turn + 1])
    if number < 7:
      front.append(rows[turn:])
  clavicle = [(12, -118, 7), (45, -121, 5.5), (85, -133, 5.5), (135, -141, 7)]
  return back, front, np.array(clavicle, np.float32)
