"""What age and disease change in the head: cortex, sulci, ventricles, hippocampi.

Sulci are sheets: the zeros of a random wave over the smooth outside of the cerebrum,
continued inwards to a depth of their own. Cortex is what lies within `cortex_mm` of the
outside or of a sheet; CSF what lies within the gap or the half-width. Sizes change, the
sheets do not: a subject keeps the same folds for life. Ventricles and hippocampi are
bent tubes whose thickness is solved for the requested volume.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ldm_jax.data.phantom import fields
from ldm_jax.data.phantom.brain.head import Head, View
from ldm_jax.data.phantom.draws import Values, generator
from ldm_jax.data.phantom.fields import ellipsoid, share, sheet_share

# (x, y, z, radius) of the right half, mm of the template.
VENTRICLE = [
  (11, 35, 3, 2.5),
  (13, 27, 8, 5.0),
  (12, 14, 13, 5.0),
  (12, -4, 18, 4.6),
  (15, -18, 20, 4.8),
  (21, -33, 17, 6.0),
  (27, -44, 8, 6.8),
]
OCCIPITAL_HORN = [(27, -44, 8, 7.0), (26, -60, 5, 4.0), (22, -76, 4, 1.5)]
TEMPORAL_HORN = [
  (27, -44, 8, 6.0),
  (34, -37, -3, 3.6),
  (37, -25, -11, 2.6),
  (34, -11, -17, 2.4),
]
HIPPOCAMPUS = [
  (20, -7, -20, 5.6),
  (26, -15, -18.5, 5.6),
  (30, -26, -12, 4.6),
  (27, -36, -3, 3.2),
]
FOLD_MM = 22.0  # wavelength of the sulci's wave: two sheets each


class Cerebrum(NamedTuple):
  """Shares of the fine voxels in [0, 1], float32 (d, h, w), disjoint."""

  csf: np.ndarray  # sulci, cisterns, third ventricle, the room around a hippocampus
  grey: np.ndarray  # cortex and deep nuclei
  white: np.ndarray
  ventricles: np.ndarray  # lateral
  hippocampi: np.ndarray
  deep: np.ndarray  # the part of `grey` that is deep nuclei


def cerebrum(
  head: Head, brain: Mapping[str, float], subject: Values, view: View
) -> Cerebrum:
  """Builds the cerebrum of a subject; distances are mm of the subject's own head.

  Args:
    head: points and distances of `head.build`.
    brain: sizes of `population.brain_of`.
    subject: identity.
    view: grid.

  Raises:
    ValueError: if ventricles or hippocampi cannot have the requested volume.
  """
  half, scale = head.half, np.float32(head.scale)
  pixel = head.pixel * head.scale
  outside = np.maximum(head.hull, 2.0 - head.cerebellum)
  outside = np.maximum(outside, -head.cistern) * scale

  whole = share(outside, pixel)
  surface = outside + brain['gap_mm']
  csf = 1 - share(surface, pixel)
  rind = 1 - share(surface + brain['cortex_mm'], pixel)  # CSF and cortex together
  for sheet, width in _sheets(head, brain, subject, view):
    csf = np.maximum(csf, sheet_share(sheet, width, pixel))
    rind = np.maximum(rind, sheet_share(sheet, width + brain['cortex_mm'], pixel))
  callosum = _callosum(half, head.pixel)
  csf = np.minimum(csf * (1 - callosum), whole)
  grey = np.clip(np.minimum(rind * (1 - callosum), whole) - csf, 0, 1)
  white = whole - csf - grey

  parts = {'csf': csf, 'grey': grey, 'white': white}
  deep = _nuclei(half, head.pixel) * (whole > 0)
  parts = _lay('grey', deep, parts)
  third = _third_ventricle(half, brain, head.pixel)
  parts = _lay('csf', third, parts)
  deep = deep * (1 - third)

  room = callosum + third
  size = _ventricles(head, subject, 1 - np.clip(room, 0, 1))
  ventricles = _solved('ventricles', size, brain['ventricles_ml'], view)
  parts = _lay('ventricles', ventricles, parts)
  hippocampi = _tube_shares(head, [HIPPOCAMPUS], 1 - ventricles)
  room_ml = max(brain['hippocampal_room_ml'], brain['hippocampi_ml'])
  around = _solved('hippocampi', hippocampi, room_ml, view)
  inside = _solved('hippocampi', hippocampi, brain['hippocampi_ml'], view)
  parts = _lay('csf', around, parts)
  parts = _lay('hippocampi', inside, parts)
  deep = deep * (1 - ventricles) * (1 - around)
  return Cerebrum(**parts, deep=deep)


def _lay(name, amount, parts):
  """Puts a share of a part over all the others."""
  parts = {key: value * (1 - amount) for key, value in parts.items()}
  parts[name] = parts.get(name, 0) + amount
  return parts


def _sheets(head, brain, subject, view):
  """(distance in mm to a sheet, half its width) for sulci and the large fissures."""
  half, scale = head.half, np.float32(head.scale)
  depth = -head.hull * scale
  sulci, reach = _folds(head.points, depth, subject)
  beyond = np.maximum(depth - reach, 0)
  yield np.sqrt(sulci**2 + beyond**2), brain['sulcus_mm']

  x, y, z = half + _unrest(half, subject, view)
  callosum = ellipsoid((y, z), (-7, 2), ((43, 42), 29))
  fissure = np.sqrt(x**2 + np.maximum(-callosum, 0) ** 2)
  yield fissure * scale, brain['fissure_mm'] * 0.8

  # The lateral fissure climbs backwards and opens on the insula.
  height = z - (2 - 0.4 * (y + 10))
  ends = np.maximum(y - 20, 0) ** 2 + np.maximum(-44 - y, 0) ** 2
  cleft = np.sqrt(height**2 + np.maximum(37 - x, 0) ** 2 + ends)
  insula = np.sqrt((x - 37) ** 2 + np.maximum(np.abs(height) - 10, 0) ** 2 + 1.5 * ends)
  sheet = np.minimum(cleft, insula) * scale
  yield sheet, brain['fissure_mm']


def _unrest(half, subject, view):
  """Bends the large fissures a little: (3, d, h, w) mm."""
  rng = generator(subject['form_seed'], 'fissures')
  z, y, x = view.axes()
  bends = [fields.waves(rng, 42.0).on_grid(z, y, x) for _ in range(3)]
  # Less at the midline, which stays a plane.
  amount = np.clip(half[0] / 20, 0.35, 1)
  return np.stack([1.5 * bends[0], 2.5 * bends[1], 2.5 * bends[2]]) * amount


def _folds(points, depth, subject):
  """Distance in mm to the sheets of the sulci, and how deep each reaches."""
  rng = generator(subject['form_seed'], 'folds')
  large, small = fields.waves(rng, FOLD_MM, 28, spread=0.12), fields.waves(rng, 36.0)
  distance = np.full(depth.shape, 99, np.float32)
  reach = np.zeros(depth.shape, np.float32)
  near = (depth > -4) & (depth < 32)
  # On the surface below a point, so that sheets go straight inwards.
  offset = points[:, near] - np.float32([[0], [-16], [4]])
  axes = np.float32([[66], [86], [58]])
  radius = np.sqrt(((offset / axes) ** 2).sum(0))
  radius = np.clip(radius, 0.35, None)
  surface = offset / radius
  value, gradient = large.at_with_gradient(surface)
  # Only what changes along the surface counts; lengths shrink with the radius.
  normal = surface / axes**2
  normal /= np.linalg.norm(normal, axis=0)
  gradient -= normal * (normal * gradient).sum(0)
  # A floor under the slope, or a sulcus would be a lake where the wave is flat.
  typical = 2 * np.pi / FOLD_MM / np.sqrt(3)
  steep = np.sqrt(((gradient**2).sum(0) + np.float32(typical**2)) / 2)
  distance[near] = np.abs(value) / steep * radius
  reach[near] = 16 + 6 * np.clip(small.at(surface), -1.8, 1.4)
  return distance, reach


def _callosum(half, pixel):
  """The arch of white matter between the hemispheres."""
  x, y, z = half
  arch = ellipsoid((y, z), (-7, 2), ((43, 42), 29))
  inner = ellipsoid((y, z), (-7, 1), ((37, 36), 23.5))
  amount = share(arch, pixel) * share(-inner, pixel) * share(x - 13, pixel)
  return amount * share(2 - z + 0.12 * np.abs(y + 7), pixel)


def _nuclei(half, pixel):
  """Thalamus, caudate head, putamen with pallidum."""
  x, y, z = half
  turned = (x + 0.25 * (y + 2), y, z)
  amount = share(ellipsoid(half, (10.5, -18, 6), (9, 15, 10)), pixel)
  amount = np.maximum(amount, share(ellipsoid(half, (16, 14, 8), (6, 10, 9)), pixel))
  return np.maximum(amount, share(ellipsoid(turned, (27, 1, 1), (6, 17, 10)), pixel))


def _third_ventricle(half, brain, pixel):
  x, y, z = half
  width = 0.7 * brain['fissure_mm'] + 0.3
  inside = share(ellipsoid((y, z), (-10, 0), (14, 11)), pixel)
  return sheet_share(x, width, pixel) * inside


def _ventricles(head, subject, room):
  """size -> shares of the lateral ventricles; the left one is a little larger."""
  paths = [VENTRICLE, OCCIPITAL_HORN, TEMPORAL_HORN]
  larger = 1 - np.sign(head.points[0]) * np.float32(subject['asymmetry'])
  septum = share(0.9 - head.half[0], head.pixel)
  return _tube_shares(head, paths, room * septum, larger)


def _tube_shares(head, paths, room, larger=None):
  """size -> shares of tubes of this relative thickness, within `room`."""
  half = head.half
  box = _bounds(half, paths)
  inside = half[(slice(None), *box)]
  flat = inside.reshape(3, -1)
  found = [fields.tube(flat, path) for path in paths]
  distances = np.concatenate([pair[0] for pair in found])
  radii = np.concatenate([pair[1] for pair in found])
  if larger is not None:
    radii = radii * larger[box].reshape(1, -1)

  def shares(size):
    border = (distances - np.float32(size) * radii).min(0)
    field = np.zeros(half.shape[1:], np.float32)
    field[box] = share(border, head.pixel).reshape(inside.shape[1:])
    return field * room

  return shares


def _bounds(half, paths, margin=26.0):
  """The slices of the grid around tubes."""
  knots = np.concatenate([np.asarray(path)[:, :3] for path in paths])
  low, high = knots.min(0) - margin, knots.max(0) + margin
  inside = np.ones(half.shape[1:], bool)
  for axis in range(3):
    inside &= (half[axis] > low[axis]) & (half[axis] < high[axis])
  box = []
  for axis in range(3):
    line = np.flatnonzero(inside.any(tuple({0, 1, 2} - {axis})))
    box.append(slice(int(line[0]), int(line[-1]) + 1))
  return tuple(box)


def _solved(name, shares, target_ml, view):
  voxel_ml = float(np.prod(view.fine_mm)) / 1000
  try:
    return fields.solve(shares, voxel_ml, target_ml, 1.0)[1]
  except ValueError as error:
    raise ValueError(
      f'brain phantom: {error} of the {name}, {target_ml:.3g} ml, on a grid of '
      f'{view.shape} voxels of {view.spacing_mm} mm; set another volume in '
      'counterfactual.set, or a finer grid in the options of the data section'
    ) from error
