"""Look of the cardiac phantom: a heart in fractions -> a noisy picture of the chest.

Bright blood, dark muscle, bright fat, as in cine bSSFP. Every tissue is laid over what
lies behind it by its share of the voxel. What the attributes change beyond the heart:
BMI the fat under the skin and around the heart, SEX the fat under the skin, AGE the
width of the aorta, the brightness of the muscle and the size of the atria.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from ldm_jax.data.phantom.cardiac.anatomy import Heart
from ldm_jax.data.phantom.draws import Values, generator
from ldm_jax.data.phantom.fields import mix, rician, share


@dataclasses.dataclass(frozen=True)
class Contrast:
  """Signal of the tissues at one site, in units of the full scale, and its faults."""

  blood: float
  muscle: float
  fat: float
  liver: float
  lung: float
  bias: float  # relative deviation of the coil's sensitivity
  noise: float  # deviation of the noise of each of the two channels


CONTRASTS = {
  'public': Contrast(0.82, 0.30, 0.88, 0.42, 0.08, bias=0.10, noise=0.018),
  'private': Contrast(0.66, 0.25, 0.56, 0.30, 0.05, bias=0.20, noise=0.030),
}


def paint(heart: Heart, patient: Values) -> np.ndarray:
  """Signal of every refined pixel: Heart -> (depth, h, w) float32, free of noise."""
  tissue = CONTRASTS[patient['site']]
  rng = generator(patient['texture_seed'], 'texture')
  shape = heart.lv.shape
  extent = np.array(shape[1:]) * heart.pixel_mm
  coarse = smooth_field(rng, shape, extent, 40.0)
  fine = smooth_field(rng, shape, extent, 9.0)

  image = _chest(heart, patient, tissue, coarse, fine)
  soft = heart.pixel_mm + 2
  fat_mm = 1.5 + 0.22 * max(patient['BMI'] - 18, 0) + 2 * coarse + fine
  image = _over(image, tissue.fat * (1 + 0.05 * fine), heart.envelope_mm - fat_mm, soft)
  # The thin wall of the right ventricle and of the atria.
  image = _over(image, tissue.muscle * 1.15, heart.envelope_mm - 2.5, heart.pixel_mm)
  flow = 1 + 0.03 * fine + 0.03 * coarse
  age = 0.004 * (patient['AGE'] - 50)
  image = mix(image, tissue.muscle * (1 + age + 0.10 * fine), heart.muscle)
  image = mix(image, tissue.blood * 0.93 * flow, heart.atria)
  image = mix(image, tissue.blood * (0.95 + 0.04 * fine) * flow, heart.rv)
  # Trabeculae: dark strands on the rim of the cavity; papillary muscles inside it.
  strands = 0.5 * np.clip(fine + 0.3, 0, 1) * np.clip(1 + heart.rim_mm / 6, 0, 1)
  cavity = mix(tissue.blood * flow, tissue.muscle, strands)
  cavity = mix(cavity, tissue.muscle * 1.1, 0.85 * heart.papillary)
  return mix(image, cavity, heart.lv) * np.float32(patient['gain'])


def degrade(
  image: np.ndarray, patient: Values, phase: str, spacing_mm: Sequence[float]
) -> np.ndarray:
  """Adds the coil's sensitivity and Rician noise: (depth, h, w) -> the same."""
  tissue = CONTRASTS[patient['site']]
  rng = generator(patient['texture_seed'], 'bias')
  extent = np.array(image.shape[1:]) * spacing_mm[1:]
  bias = tissue.bias * smooth_field(rng, image.shape, extent, 110.0)
  signal = image * np.exp(bias)
  rng = generator(patient['texture_seed'], 'noise', phase)
  return rician(rng, signal, tissue.noise)


def smooth_field(
  rng: np.random.Generator,
  shape: Sequence[int],
  extent_mm: Sequence[float] | np.ndarray,
  scale_mm: float,
) -> np.ndarray:
  """Random field of deviation about 1, smooth over scale_mm in plane: (d, h, w).

  Cubic B-splines on knots scale_mm apart; slices are correlated over three neighbours.
  The knots depend on millimetres only, so that a coarse grid shows the same field.
  """
  knots = [int(np.ceil(extent / scale_mm)) + 3 for extent in extent_mm]
  field = rng.standard_normal((8, *knots), np.float32)
  rows = _spline(shape[1], knots[0])
  columns = _spline(shape[2], knots[1])
  field = np.matmul(np.matmul(rows, field), columns.T)
  flat = _spline(shape[0], 8) @ field.reshape(8, -1)
  return 2.4 * flat.reshape(shape)


def _chest(heart, patient, tissue, coarse, fine):
  """What surrounds the heart: lungs, liver, aorta, chest wall, fat, air."""
  x, y = heart.x, heart.y
  px = heart.pixel_mm
  image = tissue.lung * (1 + 0.35 * fine)
  image = _over(image, tissue.lung * 4, 1.4 - fine, 0.6)  # vessels
  # Liver and diaphragm rise towards the apex, on the right and below.
  dome = y + 0.35 * np.sqrt((x - 25) ** 2 + 400) + 3 * coarse
  liver = dome + 20 + 22 * (heart.height - 0.3)
  image = _over(image, tissue.liver * (1 + 0.07 * fine + 0.05 * coarse), liver, px + 1)
  # Descending aorta, behind on the left.
  radius = 8 + 0.07 * patient['AGE']
  aorta = np.sqrt((x + 44) ** 2 + (y + 50) ** 2) - radius
  image = _over(image, tissue.muscle, aorta - 2, px)
  image = _over(image, tissue.blood * 0.97, aorta, px)
  # Chest wall in front: muscle with ribs, fat, air.
  bend = y + x * x / 320 + 1.5 * coarse[:1]
  front = 52 - bend
  ribs = 1 + 0.5 * np.cos((x - 2.5 * heart.height * 10) / 9) ** 2
  image = _over(image, tissue.muscle * ribs, front, px)
  skin = front + 10
  image = _over(image, tissue.fat * (1 + 0.04 * fine), skin, px)
  fat_mm = 3 + 0.75 * max(patient['BMI'] - 18, 0) + (0 if patient['SEX'] else 3)
  return _over(image, 0.01, skin + fat_mm, px)


def _over(image, value, distance_mm, soft_mm):
  """Lays `value` over the image where the signed distance is negative."""
  return mix(image, value, share(distance_mm, soft_mm))


@functools.lru_cache(maxsize=64)
def _spline(size, knots):
  """Uniform cubic B-splines at `size` points: (size, knots), rows sum to 1."""
  position = (np.arange(size) + 0.5) / size * (knots - 3) + 1
  apart = np.abs(position[:, None] - np.arange(knots)[None])
  inner = 2 / 3 - apart**2 + apart**3 / 2
  outer = np.clip(2 - apart, 0, None) ** 3 / 6
  return np.where(apart < 1, inner, outer).astype(np.float32)
