"""Chest phantom: frontal radiographs whose true counterfactuals are known.

A patient (identity) with attributes (age, sex, cardiothoracic ratio, effusion,
consolidation) gives one picture; the same patient with other attributes is the true
counterfactual. Arrays are (1, h, w): to inferior, and to the patient's left, as a film
is looked at; the pitch is nominal, 430 mm along the longer side.
Labels: 0 background, 1 lungs, 2 heart, 3 effusion, 4 consolidation.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np

from ldm_jax.data.cohorts import cohort as cohorts
from ldm_jax.data.phantom import fields, source
from ldm_jax.data.phantom.chest import anatomy, appearance
from ldm_jax.data.phantom.chest import population as chest_population
from ldm_jax.data.phantom.chest.population import SCHEMA, sample_patient

VERSION = 1  # raised whenever the same parameters give another picture
LABELS = ('background', 'lungs', 'heart', 'effusion', 'consolidation')
DETECTOR_MM = 430.0
FINE_MM = 2.5


@dataclasses.dataclass(frozen=True)
class Detector:
  """Grid of a radiograph: shape (1, h, w), 430 mm along its longer side.

  Raises ValueError for another number of slices, or fewer pixels than show a heart.
  """

  shape: tuple[int, int, int] = (1, 128, 128)

  def __post_init__(self):
    object.__setattr__(self, 'shape', tuple(int(n) for n in self.shape))
    three = len(self.shape) == 3 and self.shape[0] == 1
    if not three or min(self.shape[1:]) < 16 or self.shape[1] * 4 < self.shape[2] * 3:
      raise ValueError(
        f'shape={self.shape} of a chest phantom; (1, rows, columns) is required, at '
        'least 16 each, upright or square; change the options of the data section'
      )

  @property
  def spacing_mm(self):
    return DETECTOR_MM / max(self.shape)

  @property
  def refine(self):
    return (1, *[int(np.ceil(self.spacing_mm / FINE_MM))] * 2)

  @property
  def affine(self):
    """(4, 4): index (d, h, w, 1) -> world RAS mm: anterior, inferior, left."""
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2] = 1, -self.spacing_mm, -self.spacing_mm
    affine[2, 3], affine[0, 3] = (self.spacing_mm * (n - 1) / 2 for n in self.shape[1:])
    affine[3, 3] = 1
    return affine

  def axes(self):
    """(y, x) of the fine pixels in mm, 0 in the middle."""
    refine = self.refine[1]
    step = self.spacing_mm / refine
    return [
      ((np.arange(n * refine) + 0.5) * step - n * self.spacing_mm / 2).astype(
        np.float32
      )
      for n in self.shape[1:]
    ]


class Rendered(NamedTuple):
  """One radiograph of one patient."""

  image: np.ndarray  # (1, h, w) float32, about [0, 1]
  labels: np.ndarray  # (1, h, w) uint8, the largest fraction
  fractions: np.ndarray  # (5, 1, h, w) float32, sum 1 over LABELS
  affine: np.ndarray  # (4, 4) index (d, h, w, 1) -> world RAS mm


def render(patient, attributes, detector=None, acquisition=0):
  """Renders a patient as the attributes make him.

  Args:
    patient: identity, of `sample_patient`.
    attributes: all of SCHEMA.
    detector: grid.
    acquisition: which film; the same number gives the same noise.

  Raises:
    ValueError: attributes that are missing, unknown or out of range.
  """
  detector = detector or Detector()
  chest_population.check(attributes)
  axes = detector.axes()
  chest = anatomy.build(patient, attributes, axes)
  step = detector.spacing_mm / detector.refine[1]
  image = appearance.paint(chest, attributes, patient, step, axes)
  image = fields.pool(image[None], detector.refine)
  fractions = fields.pool(_fractions(chest, attributes)[:, None], detector.refine)
  return Rendered(
    appearance.degrade(image, patient, acquisition),
    fractions.argmax(0).astype(np.uint8),
    fractions,
    detector.affine,
  )


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
class PhantomSource(source.Intervened):
  """A radiograph that is rendered when it is read; attributes are (name, value)."""

  seed: int
  index: int
  site: str
  stream: str
  attributes: tuple
  detector: Detector
  version: ClassVar = VERSION

  def rendered(self):
    patient, _ = sample_patient(self.seed, self.index, self.site, self.stream)
    return render(patient, dict(self.attributes), self.detector)


def cohort(name, num_patients, seed=0, site='public', shape=(1, 128, 128)):
  """Cohort of `num_patients` patients with one radiograph each.

  The name separates cohorts: it is the prefix of the patients ('public-P00012') and
  seeds their draws, so that cohorts of different name share no patient.
  Raises ValueError for fewer than one patient, an unknown site or an impossible grid.
  """
  if num_patients < 1:
    raise ValueError(
      f'num_patients={num_patients} of the chest phantom {name!r}; at least 1 is '
      'required; change the options of the data section'
    )
  detector = Detector(shape)
  records = []
  for index in range(num_patients):
    _, attributes = sample_patient(seed, index, site, name)
    pairs = tuple(sorted(attributes.items()))
    records.append(
      cohorts.Record(
        id=f'{name}-P{index:05d}',
        patient=f'{name}-P{index:05d}',
        source=PhantomSource(seed, index, site, name, pairs, detector),
        attributes=attributes,
      )
    )
  return cohorts.Cohort(name, SCHEMA, tuple(records))


def population(seed, num, site='public'):
  """`num` attribute dicts of new patients: requests for sampling.

  Drawn from the published constants of the site in a stream of its own, so they belong
  to no patient of any cohort and cost no privacy.
  """
  return [sample_patient(seed, i, site, '\0requests')[1] for i in range(num)]
