"""Brain phantom: T1-weighted 3D heads whose true counterfactuals are known.

A subject (identity) with attributes (age, sex, diagnosis) gives one volume: the same
subject with another age is the true older brain. Only what an attribute drives moves;
skull, face, folds, texture and noise are the subject's and the scan's own. Arrays are
(d, h, w): to superior, to anterior, to the right (RAS).
Labels: 0 background, 1 CSF, 2 grey matter, 3 white matter, 4 lateral ventricles,
5 hippocampi, 6 cerebellum and brain stem.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from ldm_jax.data.cohorts.cohort import Cohort, Record
from ldm_jax.data.phantom import draws, fields, source
from ldm_jax.data.phantom.brain import appearance, head
from ldm_jax.data.phantom.brain import population as brain_population
from ldm_jax.data.phantom.brain.cerebrum import cerebrum
from ldm_jax.data.phantom.brain.head import View
from ldm_jax.data.phantom.brain.population import SCHEMA, sample_subject
from ldm_jax.data.phantom.draws import Values

VERSION = 1  # raised whenever the same parameters give another picture
LABELS = ('background', 'csf', 'grey', 'white', 'ventricles', 'hippocampi', 'hindbrain')


def render(
  subject: Values, attributes: Values, view: View | None = None, acquisition: int = 0
) -> source.Rendering:
  """Renders a subject with the given attributes.

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
  image = appearance.degrade(
    fields.pool(image, view.refine), subject, acquisition, view
  )
  fractions = fields.pool(_fractions(skull, matter), view.refine)
  return source.rendering(image, fractions, LABELS, view.voxel_ml, view.affine)


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
class PhantomSource(source.CounterfactualSource):
  """A volume that is rendered when it is read.

  A copy with changed attributes keeps its `acquisition`: it is the same scan of the
  same subject, had the attributes been others.
  """

  acquisition: int
  view: View
  version: ClassVar = VERSION

  def rendered(self) -> source.Rendering:
    subject, _ = sample_subject(self.seed, self.index, self.site, self.stream)
    attributes = dict(self.attributes)
    return render(subject, attributes, self.view, self.acquisition)


def cohort(
  name: str,
  num_patients: int,
  seed: int = 0,
  site: str = 'public',
  shape: tuple[int, ...] = (64, 80, 64),
  spacing_mm: tuple[float, ...] = (2.5, 2.5, 2.5),
  num_visits: int = 1,
  interval_years: float = 2.0,
) -> Cohort:
  """Cohort of `num_patients` subjects with `num_visits` records each.

  The name is the prefix of the subjects' ids ('public-P00012') and part of their seed,
  so that cohorts with different names share no subject. Visits lie `interval_years`
  apart; the subject may decline from one to the next.

  Raises:
    ValueError: fewer than one subject or visit, visits that do not follow each other,
      an unknown site or an impossible grid.
  """
  draws.check_counts('brain', name, num_patients=num_patients, num_visits=num_visits)
  if not interval_years > 0:
    raise ValueError(
      f'brain phantom {name!r}: expected interval_years above 0, got {interval_years}; '
      'change the options of the data section'
    )
  view = View(shape, spacing_mm)
  records = []
  for index in range(num_patients):
    subject, first = sample_subject(seed, index, site, name)
    patient = draws.patient_id(name, index)
    for visit in range(num_visits):
      attributes = brain_population.at_visit(subject, first, visit * interval_years)
      pairs = tuple(sorted(attributes.items()))
      label = f'v{visit}' if num_visits > 1 else ''
      records.append(
        Record(
          id='_'.join(filter(None, (patient, label))),
          patient=patient,
          visit=label,
          source=PhantomSource(seed, index, site, name, pairs, visit, view),
          attributes=brain_population.known_attributes(subject, attributes),
        )
      )
  return Cohort(name, SCHEMA, tuple(records))


def population(seed: int, num: int, site: str = 'public') -> list[dict[str, Any]]:
  """Attributes of `num` new subjects: requests for sampling.

  Drawn from the published constants of the site with a seed of its own: they belong to
  no subject of any cohort and cost no privacy.
  """
  requests = []
  for index in range(num):
    subject, attributes = sample_subject(seed, index, site, draws.REQUESTS)
    requests.append(brain_population.known_attributes(subject, attributes))
  return requests
