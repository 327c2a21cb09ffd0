"""Geometry of the cardiac phantom: parameters -> fractions of every voxel.

The left ventricle is an ellipsoid cut at the base; the muscle an ellipsoid around it;
the right ventricle a crescent on the septum. In polar coordinates (rho, angle) about
the long axis every border is an implicit curve whose first-order distance, divided by
the pixel, gives the share of a pixel inside it. The equatorial radius and the width of
the crescent are solved so that the shares add up to the requested volumes.
Arrays are (depth, h, w) on the grid of the stack, refined in plane where it is coarse.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ldm_jax.data.phantom import fields
from ldm_jax.data.phantom.cardiac.population import (
  APEX_WALL,
  EQUATOR,
  Stack,
  equator_radius,
)
from ldm_jax.data.phantom.draws import Values
from ldm_jax.data.phantom.fields import share

FINE_MM = 4.0  # pixels coarser than this are refined in plane
RIGHT_APEX = 0.1  # where the right ventricle begins along the LV long axis
HORN = np.cos(np.deg2rad(82))  # half the angle that the right ventricle spans


class Heart(NamedTuple):
  """One heart on a refined grid; lengths in mm, fractions in [0, 1], float32."""

  lv: np.ndarray  # (depth, h, w) cavity of the left ventricle, papillaries included
  muscle: np.ndarray  # its wall
  rv: np.ndarray  # cavity of the right ventricle
  atria: np.ndarray  # blood above the base, belonging to no label
  envelope_mm: np.ndarray  # distance to the outside of muscle and blood, < 0 inside
  rim_mm: np.ndarray  # distance to the inner border of the muscle, < 0 in the cavity
  papillary: np.ndarray  # muscle inside the cavity
  x: np.ndarray  # (h, w) to the patient's right, before the rotation
  y: np.ndarray  # (h, w) to anterior
  height: np.ndarray  # (depth, 1, 1) 0 at the apex, 1 at the base
  pixel_mm: float
  refine: tuple[int, int, int]  # how many refined pixels make one pixel


def heart(patient: Values, phase: str, stack: Stack) -> Heart:
  """Builds the heart of a patient at 'ED' or 'ES' in the real slices of a stack.

  Raises ValueError where the stack cannot hold the requested volumes.
  """
  lv_ml, rv_ml = patient[f'LV{phase}V'], patient[f'RV{phase}V']
  wall = patient[f'MYO{phase}THICK']
  long_axis = patient['long_axis_mm'][phase]
  slice_mm = stack.spacing_mm[0]
  x, y, pixel, refine = _plane(patient['ANGLE'], stack)
  voxel_ml = slice_mm * pixel[0] * pixel[1] / 1000
  pixel_mm = float(np.mean(pixel))

  # Heights: the outside of the apex stays where it is, the base moves.
  apex = patient['apex_mm'] + APEX_WALL * wall
  above_apex = (np.arange(patient['DEPTH']) + 0.5) * slice_mm - apex
  height = (above_apex / long_axis).astype(np.float32)[:, None, None]
  ventricle = height <= 1
  endo = _ellipse((height - EQUATOR) / EQUATOR)
  epi = _ellipse((height - EQUATOR) / (EQUATOR + APEX_WALL * wall / long_axis))

  rho, cosine, sine, septum = _polar(x, y, height, patient)
  outline = 1 + _waves(cosine, sine, patient)

  def cavity(radius):
    inner = share(rho - np.float32(radius) * endo * outline, pixel_mm)
    return inner * (ventricle & (endo > 0))

  start = equator_radius(lv_ml, long_axis)
  radius, lv = _solve(cavity, start, lv_ml / voxel_ml, 2, 'left', stack)
  outer = (radius + wall) * epi * outline
  # Above the base a thin-walled atrium takes the place of the ventricle.
  atrium = radius * (1.1 if phase == 'ES' else 0.72) * (0.8 + 0.004 * patient['AGE'])
  outer = np.where(ventricle, outer, atrium + 2.0)
  whole = share(rho - outer, pixel_mm) * (epi > 0)
  muscle = np.where(ventricle, np.maximum(whole - lv, 0), 0)
  inside = np.where(ventricle, whole, 0)

  reach = np.clip((height - RIGHT_APEX) / (1 - RIGHT_APEX), 0, 1)
  profile = np.sqrt(np.sin(np.pi / 2 * reach)) * np.where(ventricle, 1, 0.8)
  beyond = np.maximum(rho - outer, 0)
  slope = np.sqrt(np.maximum(1 - septum**2, 0)) / ((1 - HORN) * rho)

  def crescent_mm(width):
    width = np.maximum(width * profile, 1e-3)
    scaled = beyond / width
    value = scaled**2 - (septum - HORN) / (1 - HORN)
    return value / np.sqrt((2 * scaled / width) ** 2 + slope**2 + 1e-6)

  free = (1 - whole) * (profile > 0)

  def right(width):
    return share(crescent_mm(np.float32(width)), pixel_mm) * free * ventricle

  start = 0.8 * rv_ml * 1000 / (1.7 * (radius + wall) * long_axis)
  width, rv = _solve(right, start, rv_ml / voxel_ml, 1.3, 'right', stack)
  right_mm = crescent_mm(width)
  atria = np.where(
    ventricle, 0, np.maximum(share(rho - atrium, pixel_mm), share(right_mm, pixel_mm))
  )
  envelope = np.minimum(
    np.where(epi > 0, rho - outer, np.inf), np.where(profile > 0, right_mm, np.inf)
  )
  papillary = _papillary(rho, cosine, sine, height, radius * endo, patient, pixel_mm)
  parts: dict[str, Any] = {
    'lv': lv,
    'muscle': muscle,
    'rv': np.minimum(rv, 1 - inside),
    'atria': atria,
    'envelope_mm': envelope,
    'rim_mm': rho - radius * endo * outline,
    'papillary': papillary,
  }
  parts = {name: np.asarray(part, np.float32) for name, part in parts.items()}
  return Heart(**parts, x=x, y=y, height=height, pixel_mm=pixel_mm, refine=refine)


def _plane(angle_deg, stack):
  """Coordinates of the refined pixels in the frame of the unrotated patient, mm."""
  (_, h, w), (_, row_mm, column_mm) = stack.shape, stack.spacing_mm
  refine = int(np.ceil(max(row_mm, column_mm) / FINE_MM))
  row_mm, column_mm = row_mm / refine, column_mm / refine
  y = (np.arange(h * refine) - (h * refine - 1) / 2)[:, None] * row_mm
  x = (np.arange(w * refine) - (w * refine - 1) / 2)[None] * column_mm
  c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
  turned = (c * x + s * y).astype(np.float32), (c * y - s * x).astype(np.float32)
  return *turned, (row_mm, column_mm), (1, refine, refine)


def _polar(x, y, height, patient):
  """Radius, cosine and sine about the tilted long axis; cosine from the septum."""
  towards = np.deg2rad(patient['septum_deg'])
  # The two ventricles together, not the left one, lie in the middle of the picture.
  axis_x = patient['centre_mm'][0] - 13 * np.cos(towards)
  axis_y = patient['centre_mm'][1] - 13 * np.sin(towards)
  lean = (height - 0.5) * patient['long_axis_mm']['ED']
  dx = x - np.float32(axis_x) - lean * np.float32(patient['tilt'][0])
  dy = y - np.float32(axis_y) - lean * np.float32(patient['tilt'][1])
  rho = np.sqrt(dx * dx + dy * dy) + np.float32(1e-3)
  cosine, sine = dx / rho, dy / rho
  septum = cosine * np.float32(np.cos(towards)) + sine * np.float32(np.sin(towards))
  return rho, cosine, sine, septum


def _waves(cosine, sine, patient):
  """Oval and triangular departures of the outline from a circle, relative."""
  (oval, triangle), (a, b) = patient['ovality'], np.deg2rad(patient['ovality_deg'])
  double_c, double_s = cosine**2 - sine**2, 2 * cosine * sine
  triple_c = double_c * cosine - double_s * sine
  triple_s = double_s * cosine + double_c * sine
  waves = oval * (np.cos(a) * double_c + np.sin(a) * double_s)
  waves += 0.7 * triangle * (np.cos(b) * triple_c + np.sin(b) * triple_s)
  return waves.astype(np.float32)


def _papillary(rho, cosine, sine, height, radius, patient, pixel_mm):
  """Two muscles that hang free in the middle third of the cavity."""
  found = np.zeros_like(rho)
  size = np.sqrt(np.clip(1 - ((height - 0.5) / 0.27) ** 2, 0, 1))
  for angle in np.deg2rad(np.array(patient['papillary_deg']) + patient['septum_deg']):
    along = cosine * np.float32(np.cos(angle)) + sine * np.float32(np.sin(angle))
    apart = rho**2 + (0.64 * radius) ** 2 - 1.28 * radius * rho * along
    apart = np.sqrt(np.maximum(apart, 0))
    found = np.maximum(found, share(apart - 0.2 * radius * size, pixel_mm))
  return found * (size > 0)


def _ellipse(offset):
  """Radius of a unit circle at an offset from its centre; 0 outside."""
  return np.sqrt(np.maximum(1 - offset**2, 0)).astype(np.float32)


def _solve(shape, start, target, power, side, stack):
  """Size at which the shares of `shape(size)` add up to `target` voxels, and these."""
  try:
    return fields.solve(shape, 1.0, target, start, power, 4.0, (0.4, 2.5))
  except ValueError as error:
    raise ValueError(
      f'cardiac phantom: {error} of the {side} ventricle in a stack of shape '
      f'{stack.shape}, spacing {stack.spacing_mm} mm; expected at least 60 mm through '
      'plane and 160 mm in plane; change shape or spacing_mm in the options of the '
      'data section'
    ) from error
