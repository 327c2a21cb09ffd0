"""Sources of phantoms: scans that are rendered when they are read."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ldm_jax.data.readers.volume import Volume


class Rendering(NamedTuple):
  """One scan of a phantom, with its truth."""

  image: np.ndarray  # (d, h, w) float32, about [0, 1]
  labels: np.ndarray  # (d, h, w) uint8, the label with the largest fraction
  fractions: np.ndarray  # (l, d, h, w) float32, sum 1 over the labels
  volumes_ml: dict[str, float]  # label -> ml, without background; empty of projections
  affine: np.ndarray  # (4, 4) index (d, h, w, 1) -> world RAS mm


def rendering(
  image: np.ndarray,
  fractions: np.ndarray,
  names: Sequence[str],
  voxel_ml: float | None,
  affine: np.ndarray,
) -> Rendering:
  """Derives labels and volumes from the fractions (l, d, h, w) of the named labels.

  `voxel_ml` is None for projections, whose pixels have no volume.
  """
  volumes = {}
  if voxel_ml is not None:
    totals = fractions[1:].sum((1, 2, 3), dtype=np.float64) * voxel_ml
    volumes = dict(zip(names[1:], totals.tolist(), strict=True))
  return Rendering(
    image,
    fractions.argmax(0).astype(np.uint8),
    fractions,
    volumes,
    affine,
  )


@dataclasses.dataclass(frozen=True)
class RenderedSource(abc.ABC):
  """A scan of one patient; its fields are all that it depends on beside the code.

  Attributes:
    seed, index, site, stream: which patient is drawn.
    version: of the code; raised when the same fields give another scan.
  """

  seed: int
  index: int
  site: str
  stream: str
  version: ClassVar[int]

  @abc.abstractmethod
  def rendered(self) -> Rendering:
    """Renders the scan."""

  def read(self) -> tuple[Volume, Volume]:
    """The image and its labels, (d, h, w) each."""
    found = self.rendered()
    return Volume(found.image, found.affine), Volume(found.labels, found.affine)

  def fingerprint(self) -> str:
    """Hash of everything the scan depends on; needs no rendering."""
    content = json.dumps([self.version, dataclasses.asdict(self)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class CounterfactualSource(RenderedSource):
  """A scan whose attributes, sorted (name, value) pairs, can be set to others."""

  attributes: tuple[tuple[str, Any], ...]

  def counterfactual(self, changes: Mapping[str, Any]) -> CounterfactualSource:
    """Source of the true counterfactual under changed attributes: name -> value."""
    changed = {**dict(self.attributes), **changes}
    return dataclasses.replace(self, attributes=tuple(sorted(changed.items())))
