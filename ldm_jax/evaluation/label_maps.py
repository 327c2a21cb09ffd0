"""Are label maps sane, and do they fit their scans? Class indices (n,d,h,w) -> figures.

[Dice45] Dice, Ecology 26, 1945. [Taha15] Taha, Hanbury, BMC Med. Imaging 15, 2015: the
95th percentile of the Hausdorff distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ldm_jax.data.cohorts import roles
from ldm_jax.data.cohorts.label_values import classes_of, named
from ldm_jax.evaluation import intervals
from ldm_jax.types import Array, Config

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split


def dice(guess: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
  """Overlap of each foreground class [Dice45]: (n,d,h,w) each -> (n,num_classes - 1).

  NaN where neither map has the class.
  """
  found = np.full((len(truth), num_classes - 1), np.nan)
  axes = tuple(range(1, truth.ndim))
  for index in range(1, num_classes):
    a, b = guess == index, truth == index
    total = a.sum(axes) + b.sum(axes)
    some = total > 0
    found[some, index - 1] = 2 * (a & b).sum(axes)[some] / total[some]
  return found


def surface_distance_mm(
  guess: np.ndarray,
  truth: np.ndarray,
  num_classes: int,
  spacing_mm: Array,
  percentile: float = 95.0,
) -> np.ndarray:
  """95th percentile of the distances between surfaces [Taha15]: (n,num_classes - 1) mm.

  The larger one of both directions. NaN where neither map has the class; where one of
  them lacks it, the diagonal of the volume.

  Args:
    guess, truth: class indices (n,d,h,w).
    num_classes: background included.
    spacing_mm: (3,) voxel size (d,h,w).
    percentile: 100 is the Hausdorff distance itself.
  """
  spacing = np.asarray(spacing_mm, np.float64)
  diagonal = float(np.linalg.norm(spacing * truth.shape[1:]))
  found = np.full((len(truth), num_classes - 1), np.nan)
  for row, (a, b) in enumerate(zip(guess, truth, strict=True)):
    for index in range(1, num_classes):
      pair = a == index, b == index
      present = [mask.any() for mask in pair]
      if all(present):
        found[row, index - 1] = _between(*pair, spacing, percentile)
      elif any(present):
        found[row, index - 1] = diagonal
  return found


def _between(one, other, spacing, percentile):
  edges = [_surface(mask) for mask in (one, other)]
  far = []
  for here, there in (edges, edges[::-1]):
    distance = ndimage.distance_transform_edt(~there, sampling=spacing)
    far.append(np.percentile(distance[here], percentile))
  return max(far)


def _surface(mask):
  """Voxels of a mask with a neighbour outside; the border of the volume counts."""
  flat = mask.shape[0] == 1
  ball = ndimage.generate_binary_structure(3, 1)
  if flat:
    ball[0] = ball[2] = False
  return mask & ~ndimage.binary_erosion(mask, ball)


def single_component(maps: np.ndarray, index: int, least_share: float = 0.02) -> Array:
  """Whether a class is one piece in each map (n,d,h,w): (n,), NaN where it is absent.

  Pieces touch at faces, edges or corners. Those below `least_share` of the class are
  single voxels at a blurred border and do not count.
  """
  found = np.full(len(maps), np.nan)
  for row, each in enumerate(maps):
    pieces, num = ndimage.label(each == index, np.ones((3, 3, 3)))
    if num:
      sizes = np.bincount(pieces.ravel())[1:]
      found[row] = float((sizes >= least_share * sizes.sum()).sum() == 1)
  return found


def closed_rings(maps: np.ndarray, inner: int, ring: int) -> np.ndarray:
  """Share of a map's slices in which a ring encloses its inside: (n,), NaN without any.

  Of the slices that show the inner class, those where no path through neighbouring
  pixels leads from it to the border of the picture without crossing the ring. The
  outermost two, where a short-axis stack cuts valves and apex, are left out if there
  are four or more.
  """
  found = np.full(len(maps), np.nan)
  for row, each in enumerate(maps):
    slices = np.flatnonzero((each == inner).any((1, 2)))
    slices = slices[1:-1] if len(slices) > 3 else slices
    if len(slices):
      found[row] = np.mean([_is_closed(each[i], inner, ring) for i in slices])
  return found


def _is_closed(plane, inner, ring):
  free = np.pad(plane != ring, 1, constant_values=True)
  pieces, _ = ndimage.label(free)
  outside = pieces[0, 0]
  return not (pieces[1:-1, 1:-1][plane == inner] == outside).any()


def sanity(
  maps: np.ndarray,
  names: Sequence[str],
  rings: Sequence[tuple[int, int]],
  groups: Array | None = None,
) -> dict[str, Any]:
  """Figures of the shape of label maps (n,d,h,w).

  Args:
    maps: class indices.
    names: of the classes, background first.
    rings: (inner, ring) classes, of which the second should enclose the first.
    groups: (n,) patients; None makes each map its own.

  Returns:
    {'single_component': {name: share of maps in which the class is one piece},
     'closed_ring': {name of the ring: share of slices in which it is closed}}.
  """
  pieces = {
    name: intervals.mean_figure(*known(single_component(maps, index), groups))
    for index, name in enumerate(names)
    if index
  }
  closed = {
    names[ring]: intervals.mean_figure(*known(closed_rings(maps, inner, ring), groups))
    for inner, ring in rings
  }
  return {'single_component': pieces} | ({'closed_ring': closed} if closed else {})


def agreement(
  maps: np.ndarray, seen: np.ndarray, names: Sequence[str], groups: Array | None = None
) -> dict[str, Any]:
  """Dice of label maps (n,d,h,w) with what a network sees in their scans, by class."""
  overlap = dice(seen, maps, len(names))
  return {
    name: intervals.mean_figure(*known(column, groups))
    for name, column in zip(names[1:], overlap.T, strict=True)
  }


def figures(
  split: Split,
  samples: Mapping[str, Array],
  network: Any,
  section: Config,
  mark: Mapping[str, Any],
) -> dict[str, Any]:
  """Entries of metrics.json: `label_maps` of drawn maps, `mask_control` of requested.

  Args:
    split: real scans; without labels only synthetic maps are judged.
    samples: as of `assess.assess`, 'labels' or 'masks' among them.
    network: the measuring network.
    section: config.evaluate.
    mark: of figures of the real scans.
  """
  names = list(named(section.labels, section.label_names).values())
  people, found = samples.get('patients'), dict[str, Any]()
  if 'labels' in samples:
    drawn = samples['labels'], lambda: samples['volumes'], people, roles.mark()
    found['label_maps'] = {'synthetic': _figures(*drawn, names, network, section)}
    labels = split.labels(np.arange(len(split)))
    if labels is not None:
      maps, volumes = classes_of(labels, section.labels), split.volumes
      real = maps, lambda: volumes(np.arange(len(split))), split.patients, mark
      found['label_maps']['real'] = _figures(*real, names, network, section)
  if 'masks' in samples and network.measures:
    seen = network.labels(samples['volumes'])
    asked = agreement(samples['masks'], seen, names, people)
    found['mask_control'] = roles.marked(asked, roles.mark())
  return found


def _figures(maps, volumes, people, mark, names, network, section):
  """`sanity` and `agreement` of label maps; volumes() are their scans."""
  found = sanity(maps, names, rings_of(section.measures), people)
  if network.measures:
    found['agreement'] = agreement(maps, network.labels(volumes()), names, people)
  return roles.marked(found, mark)


def rings_of(measures: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
  """(inner, ring) classes of the thicknesses in `config.evaluate.measures`."""
  thick = [m['classes'] for m in measures if m['kind'] == 'thickness']
  return [(classes[0], classes[1]) for classes in thick]


def known(values: Array, groups: Array | None) -> tuple[np.ndarray, np.ndarray | None]:
  """The values (n,) that are not NaN, and the groups of these."""
  values = np.asarray(values, np.float64)
  there = np.isfinite(values)
  return values[there], None if groups is None else np.asarray(groups)[: len(values)][
    there
  ]
