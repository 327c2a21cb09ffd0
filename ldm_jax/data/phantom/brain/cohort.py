"""Brain phantom: T1-weighted 3D heads whose true counterfactuals are known.

A subject (identity) with attributes (age, sex, diagnosis) gives one volume: the same
subject with another age is the true older brain. Only what an attribute drives moves;
skull, face, folds, texture and noise are the subject's and the scan's own. Arrays are
(d, h, w): to superior, to anterior, to the right (RAS).
Labels: 0 background, 1 CSF, 2 grey matter, 3 white matter, 4 lateral ventricles,
5 hippocampi, 6 cerebellum and brain stem.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np

from ldm_jax.data.cohorts import cohort as cohorts
from ldm_jax.data.phantom import fields, source
from ldm_jax.data.phantom.brain import appearance, head
from ldm_jax.data.phantom.brain import population as brain_population
from ldm_jax.data.phantom.brain.cerebrum import cerebrum
from ldm_jax.data.phantom.brain.head import View
from ldm_jax.data.phantom.brain.population import SCHEMA, sample_subject

VERSION = 1  # raised whenever the same parameters give another picture
LABELS = ('background', 'csf', 'grey', 'white', 'ventricles', 'hippocampi', 'hindbrain')


class Rendered(NamedTuple):
  """One volume of one subject."""

  image: np.ndarray  # (d, h, w) float32, about [0, 1]
  labels: np.ndarray  # (d, h, w) uint8, the largest fraction
  fractions: np.ndarray  # (7, d, h, w) float32, sum 1 over LABELS
  volumes_ml: dict  # LABELS[1:] -> ml, the sum of the fractions
  affine: np.ndarray  # (4, 4) index (d, h, w, 1) -> world RAS mm


def render(subject, attributes, view=None, acquisition=0):
  """Renders a subject as the attributes make him.

  Args:
    subject: identity, of `sample_subject`.
    attributes: age, sex, diagnosis, and effects that are to be set.
    view: grid.
    acquisition: which scan; the same number gives the same noise.

  Raises:
    ValueError: attributes that `population.brain_of` refuses, or volumes that
      the grid cannot hold.
  """
  view = view or View()
  brain = brain_population.brain_of(subject, attributes)
  skull = head.build(subject, brain['intracranial_ml'], view)
  matter = cerebrum(skull, brain, subject, view)
  image = appearance.paint(skull, matter, subject, view)
  fractions = _fractions(skull, matter)
  fractions = fields.pool(fractions, view.refine)
  image = fields.pool(image, view.refine)
  totals = fractions[1:].sum((1, 2, 3), dtype=np.float64) * view.voxel_ml
  return Rendered(
    appearance.degrade(image, subject, acquisition, view),
    fractions.argmax(0).astype(np.uint8),
    fractions,
    dict(zip(LABELS[1:], totals.tolist(), strict=True)),
    view.affine,
  )


def _fractions(skull, matter):
  cavity = fields.share(skull.cavity, skull.pixel)
  hind = np.minimum(skull.cerebellum, skull.stem)
  upper = [matter.csf, matter.grey, matter.white, matter.ventricles, matter.hippocampi]
  upper = np.stack(upper)
  free = np.clip(1 - upper.sum(0), 0, 1)
  hind = np.minimum(fields.share(hind, skull.pixel), free)
  fluid = np.clip(cavity - upper.sum(0) - hind, 0, 1)
  upper[0] += fluid
  background = np.clip(1 - upper.sum(0) - hind, 0, 1)
  return np.stack([background, *upper, hind])


@dataclasses.dataclass(frozen=True)
class PhantomSource(source.Intervened):
  """A volume that is rendered when it is read.

  `attributes` are (name, value) pairs; without an `acquisition` of its own, a changed
  copy is the same scan of the same subject, had the attributes been others.
  """

  seed: int
  index: int
  site: str
  stream: str
  attributes: tuple
  acquisition: int
  view: View
  version: ClassVar = VERSION

  def rendered(self):
    subject, _ = sample_subject(self.seed, self.index, self.site, self.stream)
    attributes = dict(self.attributes)
    return render(subject, attributes, self.view, self.acquisition)


def cohort(
  name,
  num_patients,
  seed=0,
  site='public',
  shape=(64, 80, 64),
  spacing_mm=(2.5, 2.5, 2.5),
  num_visits=1,
  interval_years=2.0,
):
  """Cohort of `num_patients` subjects with `num_visits` records each.

  The name separates cohorts: it is the prefix of the subjects ('public-P00012') and
  seeds their draws, so that cohorts of different name share no subject. Visits lie
  `interval_years` apart; the subject may decline from one to the next.
  Raises ValueError for fewer than one subject or visit, visits that do not follow each
  other, an unknown site or an impossible grid.
  """
  for key, value in (('num_patients', num_patients), ('num_visits', num_visits)):
    if value < 1:
      raise ValueError(
        f'{key}={value} of the brain phantom {name!r}; at least 1 is required; change '
        'the options of the data section'
      )
  if not interval_years > 0:
    raise ValueError(
      f'interval_years={interval_years} of the brain phantom {name!r}; a positive '
      'number is required; change the options of the data section'
    )
  view = View(shape, spacing_mm)
  records = []
  for index in range(num_patients):
    subject, first = sample_subject(seed, index, site, name)
    for visit in range(num_visits):
      attributes = brain_population.at_visit(subject, first, visit * interval_years)
      pairs = tuple(sorted(attributes.items()))
      label = f'v{visit}' if num_visits > 1 else ''
      records.append(
        cohorts.Record(
          id='_'.join(filter(None, (f'{name}-P{index:05d}', label))),
          patient=f'{name}-P{index:05d}',
          visit=label,
          source=PhantomSource(seed, index, site, name, pairs, visit, view),
          attributes=brain_population.known_attributes(subject, attributes),
        )
      )
  return cohorts.Cohort(name, SCHEMA, tuple(records))


def population(seed, num, site='public'):
  """`num` attribute dicts of new subjects: requests for sampling.

  Drawn from the published constants of the site in a stream of its own, so they belong
  to no subject of any cohort and cost no privacy.
  """
  requests = []
  for index in range(num):
    subject, attributes = sample_subject(seed, index, site, '\0requests')
    requests.append(brain_population.known_attributes(subject, attributes))
  return requests
