"""Masks of what an edit must leave unchanged: (d,h,w) bool, true where it must.

A region comes from a NIfTI file on the scan's own grid, nonzero where the editor may
change the scan, or from the scan's labels. It is resampled to the preprocessed grid, on
which editors work, and to the scan's own, on which the result is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from scipy import ndimage

from ldm_jax.data.preprocessing import preprocess, resampling
from ldm_jax.data.readers import nifti
from ldm_jax.data.readers import volume as volumes
from ldm_jax.data.readers.grid import Grid


class PreparedScans(Protocol):
  """What is needed of a `Split` or of `Scans`, which lie above this room."""

  @property
  def name(self) -> str:
    """Of the cohort."""

  @property
  def ids(self) -> Sequence[str]:
    """Of the entries."""

  @property
  def spec(self) -> Mapping[str, Any]:
    """The preprocessing's config dict."""

  @property
  def shape(self) -> tuple[int, ...]:
    """(d,h,w) of a preprocessed volume."""

  def record(self, index: int) -> Mapping[str, Any]:
    """`Processed.record` of an entry."""

  def labels(self, indices: np.ndarray) -> np.ndarray | None:
    """(n,d,h,w) labels of the entries, or None."""


def kept(
  split: PreparedScans,
  chosen: np.ndarray,
  file: str = '',
  edit_labels: Sequence[int] = (),
  keep_labels: Sequence[int] = (),
  margin: int = 0,
) -> np.ndarray | None:
  """Masks of what editors must keep of the chosen scans, or None without any limit.

  Args:
    split: the scans.
    chosen: (n,) entries.
    file: path of a mask, nonzero where the editor may act; {id} stands for the scan's.
    edit_labels: labels where it may act.
    keep_labels: labels where it must not; they take precedence.
    margin: voxels of the preprocessed grid by which the region of `edit_labels` is
      dilated, so that a structure has room to grow.

  Returns:
    (n,d,h,w,1) bool on the preprocessed grid. Voxels outside the scan are kept.

  Raises:
    ValueError: labels of scans that have none, a mask that is not on the scan's grid,
      or a region that leaves the editor nothing.
  """
  if not file and not edit_labels and not keep_labels:
    return None
  keep = np.zeros((len(chosen), *split.shape), bool)
  if file:
    for number, index in enumerate(chosen):
      record = split.record(index)
      keep[number] = ~_on_processed(
        _read(file, split.ids[index], record, _rule(split)), record, split.shape
      )
  if edit_labels or keep_labels:
    labels = split.labels(chosen)
    if labels is None:
      section = 'counterfactual' if split.name == 'folder' else f'data.{split.name}'
      raise ValueError(
        'counterfactual.edit_labels or keep_labels is set, but a scan of '
        f'{split.name!r} has no labels; expected labels of every scan '
        f'(--config.{section}.options.label=...), or a file in counterfactual.mask '
        'instead.'
      )
    if edit_labels:
      keep |= ~_grown(np.isin(labels, edit_labels), margin)
    keep |= np.isin(labels, keep_labels)
  full = [split.ids[i] for i, mask in zip(chosen, keep, strict=True) if mask.all()]
  if full:
    raise ValueError(
      f'Nothing of {", ".join(full[:5])} may be edited; expected a region inside the '
      'scan. Change counterfactual.mask, edit_labels or keep_labels.'
    )
  return keep[..., None]


def on_source_grid(
  split: PreparedScans, index: int, keep: np.ndarray | None, file: str = ''
) -> np.ndarray | None:
  """The mask on the scan's own grid: (d,h,w) bool, in the order of `preprocess.invert`.

  Args:
    keep: (d,h,w) on the preprocessed grid, of entry `index`.
    file: as in `kept`; it is on this grid already and used as it is.
  """
  if keep is None:
    return None
  record = split.record(index)
  found = preprocess.invert(keep.astype(np.uint8), record, label=True).array > 0
  if not file:
    return found
  return found | ~_read(file, split.ids[index], record, _rule(split))


def _rule(split: PreparedScans) -> str:
  """The rule by which the scans were placed, which holds for their masks too."""
  return split.spec.get('orientation', nifti.DEFAULT_ORIENTATION)


def _read(file: str, name: str, record: Mapping[str, Any], rule: str) -> np.ndarray:
  """A mask file as bool (d,h,w) on the scan's own grid."""
  source = Grid.from_json(record['source'])
  like = volumes.Volume(
    np.broadcast_to(np.uint8(0), tuple(record['shape'])),
    source.oriented_affine(),
    source,
  )
  path = file.replace('{id}', name)
  try:
    return volumes.read_label(path, like=like, orientation=rule).array > 0
  except ValueError as error:
    raise ValueError(f'counterfactual.mask of {name}: {error}') from error


def _on_processed(mask: np.ndarray, record: Mapping[str, Any], shape) -> np.ndarray:
  place = record['scale'], record['offset']
  within = resampling.reach(record['shape'], shape, *place)
  found = np.zeros(shape, bool)
  found[within] = resampling.nearest(mask, within, *place)
  return found


def _grown(regions: np.ndarray, margin: int) -> np.ndarray:
  if not margin:
    return regions
  # Neighbours share a face; scans do not grow into each other.
  ball = ndimage.generate_binary_structure(3, 1)[None]
  return ndimage.binary_dilation(regions, ball, iterations=margin)
