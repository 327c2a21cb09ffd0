"""Look of the chest phantom: thickness of tissue along each ray -> a grey film.

Every structure adds or removes millimetres of water; the film's grey follows their sum,
white where little passes. The two sites are two apparatuses: a wall stand, and a mobile
one with more scatter, less contrast and more noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ldm_jax.data.phantom import fields
from ldm_jax.data.phantom.chest import anatomy
from ldm_jax.data.phantom.draws import Values, generator
from ldm_jax.data.phantom.fields import ellipsoid, share


@dataclasses.dataclass(frozen=True)
class Film:
  """How one site turns millimetres of water into grey, and its faults."""

  dark: float  # mm of water that leave the film black
  bright: float  # mm that leave it white
  power: float  # of the curve between
  bone: float  # mm of water for a mm of bone: less at a higher voltage
  scatter: float  # share of the rays that come from anywhere around
  noise: float  # deviation


FILMS = {
  'public': Film(88, 262, 0.9, bone=1.9, scatter=0.08, noise=0.010),
  'private': Film(50, 280, 0.85, bone=1.4, scatter=0.18, noise=0.013),
}


def paint(
  chest: anatomy.Thorax,
  attributes: Values,
  patient: Values,
  spacing_mm: float,
  axes: Sequence[np.ndarray],
) -> np.ndarray:
  """Grey of every fine pixel, free of noise: -> (h, w) float32 in about [0, 1].

  Args:
    chest: distances of `anatomy.build`.
    attributes: of the patient; sex and age are seen beyond the outlines.
    patient: identity.
    spacing_mm: of the fine pixels.
    axes: (y, x) of the fine pixels, mm.
  """
  film = FILMS[patient['site']]
  rng = generator(patient['texture_seed'], 'tissue')
  coarse = fields.waves(rng, 60.0, axes=2).on_grid(*axes)
  fine = fields.waves(rng, 9.0, 40, axes=2).on_grid(*axes)
  x, y = chest.points
  body = _body(chest, attributes, patient) * (1 + 0.015 * coarse)

  # Air in the lungs, deepest far from their borders.
  depth = 165 * np.sqrt(np.clip(-chest.lungs / 60, 0, 1))
  air = 0.74 * depth
  air = air * (1 + 0.02 * coarse) - 3.0 * fine * (depth > 0)
  inside = share(chest.heart, chest.pixel)
  air = air * (1 - 0.78 * inside * _round(chest.heart, 26))
  vessels = share(chest.vessels, chest.pixel)
  air = air * (1 - 0.9 * vessels)
  air = air - _branches(chest, patient) * (depth > 0) * (1 - inside)
  # Fluid and infiltrate take the place of air.
  fluid = share(chest.fluid, 3 * chest.pixel)
  cloud = share(chest.patch, 22.0) * (attributes['consolidation'] == 'yes')
  air = air * (1 - 0.92 * fluid) * (1 - cloud * np.clip(0.62 + 0.10 * fine, 0, 1))
  water = body - np.maximum(air, 0)
  water = water + 26 * vessels * _round(chest.vessels, 14) + 10 * inside
  water = water - 22 * share(np.abs(x) - 7.5, 4) * share(y + 58, 6) * share(-y - 190, 4)
  bubble = ellipsoid((x, y), (0.27 * chest.width_mm, 104), (26, 15))
  water = water - 60 * np.sqrt(np.clip(-bubble / 14, 0, 1)) * (body > 40)
  dense = film.bone * (1 - 0.004 * (attributes['age'] - 50))
  water = water + dense * _bones(chest, patient)

  # Scatter of the trunk alone, so that a larger heart changes no far corner.
  trunk = ndimage.gaussian_filter(body - 0.6 * depth, 40 / spacing_mm, mode='nearest')
  water = water + film.scatter * (trunk - water)
  grey = np.clip((water - film.dark) / (film.bright - film.dark), 0, None)
  return (grey**film.power * patient['gain']).astype(np.float32)


def degrade(image: np.ndarray, patient: Values, acquisition: int) -> np.ndarray:
  """Adds the detector's noise: (h, w) -> the same; one acquisition, one noise."""
  film = FILMS[patient['site']]
  rng = generator(patient['texture_seed'], 'noise', acquisition)
  noise = rng.standard_normal(image.shape, np.float32)
  # Fewer quanta pass where the film is white.
  spread = film.noise * (0.5 + np.sqrt(np.clip(image, 0, 1)))
  return np.clip(image + spread * noise, 0, None).astype(np.float32)


def _body(chest, attributes, patient):
  """Soft tissue along each ray: trunk, shoulders, arms away, breasts."""
  x, y = chest.points
  trunk = anatomy.wall(np.full_like(y, anatomy.WIDEST_MM), chest.width_mm) + 24
  trunk = trunk + 4 * patient['fat']
  shoulder = np.clip((y + 196) / 48, 0, 1) ** 0.6
  half = 58 + (trunk + 40 * np.clip((-y - 20) / 100, 0, 1) - 58) * shoulder
  edge = np.sqrt(np.clip(1 - (np.abs(x) / np.maximum(half, 1)) ** 2, 0, 1))
  depth = 205 + 12 * patient['fat'] + 25 * np.clip((y - 60) / 60, 0, 1)
  body = depth * np.minimum(1, 1.25 * edge)
  if attributes['sex'] == 'F':
    for side in (-1, 1):
      breast = ellipsoid((x, y), (side * 74, 28), (60, (70, 52)))
      body = body + 42 * np.sqrt(np.clip(-breast / 50, 0, 1))
  return body


def _branches(chest, patient):
  """Vessels of the lungs, mm of water: they part and thin from the hilum outwards."""
  rng = generator(patient['form_seed'], 'vessels')
  x, y = chest.points
  water = np.zeros_like(x)
  for side in (-1, 1):
    hilum = np.array([side * 40.0, -14.0 if side < 0 else -22.0])
    blob = ellipsoid((x, y), hilum, (17, 25))
    water = water + 38 * np.sqrt(np.clip(-blob / 14, 0, 1))
    for start in np.linspace(-1.25, 1.35, 11) + 0.1 * rng.standard_normal(11):
      paths = [(hilum, start, 3.6, 50 + 25 * rng.random())]
      for _ in range(2):
        paths += [
          (end, angle + turn, 0.62 * radius, 0.7 * length)
          for end, angle, radius, length in [_tip(*p, side) for p in paths[-2:]]
          for turn in (0.35 + 0.2 * rng.random(), -0.35 - 0.2 * rng.random())
        ]
      for point, angle, radius, length in paths:
        end = _tip(point, angle, radius, length, side)[0]
        water = np.maximum(
          water, _line(chest, [(*point, radius), (*end, 0.6 * radius)], 5.0)
        )
  return water


def _tip(point, angle, radius, length, side):
  """Where a vessel ends: (point, angle, radius, length) of what follows."""
  step = length * np.array([side * np.cos(angle), np.sin(angle)])
  return point + step, angle, radius, length


def _bones(chest, patient):
  """mm of bone along each ray: spine, ribs, clavicles, shoulder blades."""
  x, y = chest.points
  mirrored = chest._replace(points=np.stack([np.abs(x), y]))
  back, front, clavicle = anatomy.ribs(chest.width_mm, patient)
  bone = sum(_line(mirrored, path, 3.0, hollow=True) for path in back)
  bone = bone + 0.55 * sum(_line(mirrored, path, 3.0, hollow=True) for path in front)
  bone = bone + 1.2 * _line(mirrored, clavicle, 2.0, hollow=True)
  blade = ellipsoid((np.abs(x), y), (0.5 * chest.width_mm + 6, -72), (24, 58))
  bone = bone + 5 * share(blade, 6)
  discs = 0.82 + 0.18 * np.tanh(2 * np.cos(2 * np.pi * y / 25))
  spine = np.sqrt(np.clip(1 - (x / 19) ** 2, 0, 1)) * discs
  return bone + 10 * spine


def _line(chest, path, strength, hollow=False):
  """A rod seen from the side, mm along the ray times `strength`: (h, w)."""
  path = np.asarray(path, np.float32)
  margin = path[:, -1].max() + 2 * chest.pixel
  x, y = chest.points
  low, high = path[:, :2].min(0) - margin, path[:, :2].max(0) + margin
  near = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
  water = np.zeros_like(x)
  if not near.any():
    return water
  part = chest.points[:, near]
  distances, radii = fields.tube(part, path)
  nearest = np.argmin(distances - radii, 0)
  distance = np.take_along_axis(distances, nearest[None], 0)[0]
  radius = np.take_along_axis(radii, nearest[None], 0)[0]
  chord = np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))
  if hollow:  # a shell of cortical bone around marrow
    inner = np.sqrt(np.clip(1 - (distance / (0.72 * radius)) ** 2, 0, 1))
    chord = chord - 0.5 * inner
  # A rod thinner than a pixel fills a part of it.
  cover = np.minimum(1, 2 * radius / chest.pixel)
  water[near] = strength * radius * chord * cover
  return water


def _round(distance, reach):
  """0 at a border, 1 from `reach` inside on, round between."""
  return np.sqrt(np.clip(-distance / reach, 0, 1))
