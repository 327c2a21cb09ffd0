"""Look of the brain phantom: tissues by their shares -> a T1-weighted head with noise.

Bright white matter and fat, grey cortex, dark CSF and bone. The two sites are two
scanners: other contrast between the tissues, coil and noise.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ldm_jax.data.phantom import fields
from ldm_jax.data.phantom.brain.cerebrum import Cerebrum
from ldm_jax.data.phantom.brain.head import Head, View, outline
from ldm_jax.data.phantom.draws import Values, generator
from ldm_jax.data.phantom.fields import ellipsoid, mix, share


@dataclasses.dataclass(frozen=True)
class Contrast:
  """Signal of the tissues at one site, in units of the full scale, and its faults."""

  white: float
  grey: float
  csf: float
  fat: float
  muscle: float
  marrow: float
  bias: float  # relative deviation of the coil's sensitivity
  noise: float  # deviation of the noise of each of the two channels


CONTRASTS = {
  # An inversion-recovery sequence at 3 T, and an older spoiled gradient echo at 1.5 T.
  'public': Contrast(0.80, 0.48, 0.12, 0.95, 0.42, 0.50, bias=0.06, noise=0.018),
  'private': Contrast(0.64, 0.50, 0.24, 0.90, 0.50, 0.58, bias=0.14, noise=0.030),
}
BONE, AIR = 0.05, 0.005


def paint(head: Head, brain: Cerebrum, subject: Values, view: View) -> np.ndarray:
  """Signal of every fine voxel without noise: -> (d, h, w) float32.

  Args:
    head: points and distances of `head.build`.
    brain: shares of the tissues of `cerebrum.cerebrum`.
    subject: identity; its site chooses the contrast.
    view: grid.
  """
  tissue = CONTRASTS[subject['site']]
  z, y, x = view.axes()
  rng = generator(subject['texture_seed'], 'texture')
  coarse = fields.waves(rng, 45.0).on_grid(z, y, x)
  fine = fields.waves(rng, 11.0, 40).on_grid(z, y, x)
  texture = 0.012 * coarse + 0.018 * fine

  image = _around(head, tissue, coarse, fine)
  image = mix(image, tissue.csf, share(head.cavity, head.pixel))
  image = _below(head, image, tissue, fine)
  grey, white = tissue.grey * (1 + texture), tissue.white * (1 + texture)
  core = brain.white + brain.grey + brain.csf + brain.ventricles + brain.hippocampi
  # Deep nuclei hold more fibres than the cortex does.
  between = 0.75 * grey + 0.25 * white
  signal = (
    (brain.grey - brain.deep).clip(0) * grey
    + np.minimum(brain.deep, brain.grey) * between
    + brain.white * white
    + brain.hippocampi * grey * 1.03
    + (brain.csf + brain.ventricles) * tissue.csf
  )
  return (image * (1 - core) + signal) * np.float32(subject['gain'])


def degrade(
  image: np.ndarray, subject: Values, acquisition: int, view: View
) -> np.ndarray:
  """Adds the coil's sensitivity and Rician noise: (d, h, w) -> the same.

  `acquisition` names the scan: the same name gives the same noise, voxel by voxel.
  """
  tissue = CONTRASTS[subject['site']]
  rng = generator(subject['texture_seed'], 'bias')
  bias = fields.waves(rng, 260.0, 12).on_grid(*view.axes(fine=False))
  signal = image * np.exp(np.float32(tissue.bias) * bias)
  rng = generator(subject['texture_seed'], 'noise', acquisition)
  return fields.rician(rng, signal, tissue.noise)


def _around(head, tissue, coarse, fine):
  """Air, face, neck, scalp and skull."""
  z, inside, pixel = head.half[2], head.cavity, head.pixel
  skin = outline(head.half, inside)
  soft = tissue.muscle * (1 + 0.10 * fine)
  soft = mix(soft, tissue.fat * 0.8, share(1.1 - fine - 0.6 * coarse, 0.6))
  image = mix(np.full_like(inside, AIR), soft, share(skin, pixel))
  image = _face(head.half, image, tissue, pixel)
  # Under the skin a layer of fat, everywhere on the head.
  below = share(skin + 2.0, pixel) - share(skin + 5.0 + coarse, pixel)
  image = mix(image, tissue.fat, below)
  scalp = share(inside - 11, pixel) - share(inside - 7, pixel)
  image = mix(image, tissue.fat, scalp * share(-20 - z, 10))
  # Two tables of bone with marrow between them, thinner at the base.
  thick = 6.5 - 2.5 * np.clip((-z - 5) / 25, 0, 1) + 0.5 * coarse
  image = mix(image, BONE, share(inside - thick, pixel))
  marrow = share(inside - 0.72 * thick, pixel) - share(inside - 0.33 * thick, pixel)
  return mix(image, tissue.marrow, marrow * np.clip(0.75 + 0.25 * fine, 0, 1))


def _face(half, image, tissue, pixel):
  """Eyes in their fat, sinuses, airway, air cells behind the ears."""

  def over(image, value, centre, axes):
    return mix(image, value, share(ellipsoid(half, centre, axes), pixel))

  image = over(image, tissue.fat * 0.95, (31, 47, -26), (17, 27, 15))
  image = over(image, tissue.muscle, (27, 38, -26), (4, 18, 4))
  image = over(image, tissue.csf * 1.1, (32, 60, -26), (12, 12, 12))
  image = over(image, AIR, (25, 52, -54), (12, 14, 15))
  image = over(image, AIR, (0, 48, -54), (9, 30, 16))
  image = over(image, tissue.muscle, (0, 50, -48), (2, 26, 20))
  image = over(image, AIR, (0, 26, -32), (12, 12, 8))
  image = over(image, AIR, (0, 8, -66), (9, 8, 26))
  return over(image, BONE, (50, -26, -42), (13, 16, 13))


def _below(head, image, tissue, fine):
  """Cerebellum with its leaves, brain stem, fourth ventricle."""
  half, pixel, border = head.half, head.pixel, head.cerebellum
  x, y, z = half
  body = share(border, pixel)
  image = mix(image, tissue.grey * (1 + 0.02 * fine), body)
  # White matter branches from the fourth ventricle towards the surface.
  angle = np.arctan2(z + 36, -(y + 44))
  branches = 0.5 + 0.5 * np.cos(13 * angle + 0.02 * x)
  core = share(border + 9, 6) * np.clip(0.15 + branches, 0, 1)
  core = np.maximum(core, share(border + 13, 4) * share(8 - x, 4))
  image = mix(image, tissue.white, core * body)
  leaves = np.clip(np.cos(20 * angle + 0.06 * x), 0, 1) * share(-border - 9, 4)
  image = mix(image, tissue.csf, 0.45 * leaves * body)
  stem = share(head.stem, pixel)
  image = mix(image, tissue.white * 0.93 * (1 + 0.02 * fine), stem)
  return mix(
    image, tissue.csf, share(ellipsoid(half, (0, -45, -33), (7, 5, 11)), pixel)
  )
