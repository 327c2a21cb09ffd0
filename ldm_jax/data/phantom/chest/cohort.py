"""Chest phantom: frontal radiographs whose true counterfactuals are known.

A patient (identity) with attributes (age, sex, cardiothoracic ratio, effusion,
consolidation) gives one picture; the same patient with other attributes is the true
counterfactual. Arrays are (1, h, w): to inferior, and to the patient's left, as a film
is looked at; the pitch is nominal, 430 mm along the longer side.
Labels: 0 background, 1 lungs, 2 heart, 3 effusion, 4 consolidation.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from ldm_jax.data.cohorts.cohort import Cohort, Record
from ldm_jax.data.phantom import draws, fields, source
from ldm_jax.data.phantom.chest import anatomy, appearance
from ldm_jax.data.phantom.chest.population import SCHEMA, sample_patient
from ldm_jax.data.phantom.draws import Values

VERSION = 1  # raised whenever the same parameters give another picture
LABELS = ('background', 'lungs', 'heart', 'effusion', 'consolidation')
DETECTOR_MM = 430.0
FINE_MM = 2.5


@dataclasses.dataclass(frozen=True)
class Detector:
  """Grid of a radiograph, 430 mm along its longer side.

  Attributes:
    shape: (1, h, w).

  Raises:
    ValueError: more than one slice, fewer pixels than show a heart, or a picture that
      is wider than high.
  """

  shape: tuple[int, ...] = (1, 128, 128)

  def __post_init__(self):
    object.__setattr__(self, 'shape', tuple(int(n) for n in self.shape))
    three = len(self.shape) == 3 and self.shape[0] == 1
    if not three or min(self.shape[1:]) < 16 or self.shape[1] * 4 < self.shape[2] * 3:
      raise ValueError(
        'chest phantom: expected shape to be (1, rows, columns), at least 16 each, '
        f'upright or square, got {self.shape}; change the options of the data section'
      )

  @property
  def spacing_mm(self) -> float:
    """Pitch of the pixels."""
    return DETECTOR_MM / max(self.shape)

  @property
  def refine(self) -> tuple[int, int, int]:
    """How many fine pixels make one pixel, an axis each."""
    fine = int(np.ceil(self.spacing_mm / FINE_MM))
    return (1, fine, fine)

  @property
  def affine(self) -> np.ndarray:
    """(4, 4): index (d, h, w, 1) -> world RAS mm: anterior, inferior, left."""
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2] = 1, -self.spacing_mm, -self.spacing_mm
    affine[2, 3], affine[0, 3] = (self.spacing_mm * (n - 1) / 2 for n in self.shape[1:])
    affine[3, 3] = 1
    return affine

  def axes(self) -> list[np.ndarray]:
    """(y, x) of the fine pixels in mm, 0 in the middle."""
    pitch, refine = self.spacing_mm, self.refine[1]
    return [fields.centres(n, pitch, refine) for n in self.shape[1:]]


def render(
  patient: Values,
  attributes: Values,
  detector: Detector | None = None,
  acquisition: int = 0,
) -> source.Rendering:
  """Renders a patient with the given attributes; the result has no volumes in ml.

  Args:
    patient: identity, of `sample_patient`.
    attributes: all of SCHEMA.
    detector: grid.
    acquisition: which film; the same number gives the same noise.

  Raises:
    ValueError: attributes that are missing, unknown or out of range.
  """
  detector = detector or Detector()
  draws.check_attributes('chest', attributes, SCHEMA)
  axes = detector.axes()
  chest = anatomy.build(patient, attributes, axes)
  step = detector.spacing_mm / detector.refine[1]
  image = appearance.paint(chest, attributes, patient, step, axes)
  image = fields.pool(image[None], detector.refine)
  fractions = fields.pool(_fractions(chest, attributes)[:, None], detector.refine)
  film = appearance.degrade(image, patient, acquisition)
  return source.rendering(film, fractions, LABELS, None, detector.affine)


def _fractions(chest, attributes):
  """What each pixel shows, the heart in front of the lungs: (5, h, w)."""
  heart = fields.share(chest.heart, chest.pixel)
  lungs = fields.share(chest.lungs, chest.pixel) * (1 - heart)
  lungs = lungs * (1 - fields.share(chest.vessels, chest.pixel))
  fluid = fields.share(chest.fluid, chest.pixel) * lungs
  cloud = fields.share(chest.patch, chest.pixel) * (lungs - fluid)
  cloud = cloud * (attributes['consolidation'] == 'yes')
  parts = [lungs - fluid - cloud, heart, fluid, cloud]
  return np.stack([1 - sum(parts), *parts]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class PhantomSource(source.CounterfactualSource):
  """A radiograph that is rendered when it is read."""

  detector: Detector
  version: ClassVar = VERSION

  def rendered(self) -> source.Rendering:
    patient, _ = sample_patient(self.seed, self.index, self.site, self.stream)
    return render(patient, dict(self.attributes), self.detector)


def cohort(
  name: str,
  num_patients: int,
  seed: int = 0,
  site: str = 'public',
  shape: tuple[int, ...] = (1, 128, 128),
) -> Cohort:
  """Cohort of `num_patients` patients with one radiograph each.

  The name is the prefix of the patients' ids ('public-P00012') and part of their seed,
  so that cohorts with different names share no patient.

  Raises:
    ValueError: fewer than one patient, an unknown site or an impossible grid.
  """
  draws.check_counts('chest', name, num_patients=num_patients)
  detector = Detector(shape)
  records = []
  for index in range(num_patients):
    _, attributes = sample_patient(seed, index, site, name)
    pairs = tuple(sorted(attributes.items()))
    records.append(
      Record(
        id=draws.patient_id(name, index),
        patient=draws.patient_id(name, index),
        source=PhantomSource(seed, index, site, name, pairs, detector),
        attributes=attributes,
      )
    )
  return Cohort(name, SCHEMA, tuple(records))


def population(seed: int, num: int, site: str = 'public') -> list[dict[str, Any]]:
  """Attributes of `num` new patients: requests for sampling.

  Drawn from the published constants of the site with a seed of its own: they belong to
  no patient of any cohort and cost no privacy.
  """
  return [sample_patient(seed, i, site, draws.REQUESTS)[1] for i in range(num)]
