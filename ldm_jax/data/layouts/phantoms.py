"""The phantoms as layouts: they need no files, their parameters are the options.

Each also takes `unknown`: 'error', or 'missing' for a phantom that stands in for public
patients of another schema. Then an attribute of the schema that the phantom does not
have by name, in whatever case, or whose value the schema cannot hold, is missing.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort
from ldm_jax.data.layouts.shared.about import About
from ldm_jax.data.phantom.brain import cohort as brain
from ldm_jax.data.phantom.brain.population import EFFECTS
from ldm_jax.data.phantom.cardiac import cohort as cardiac
from ldm_jax.data.phantom.chest import cohort as chest

UNKNOWN = ('error', 'missing')


@dataclasses.dataclass(frozen=True)
class Phantom:
  """A phantom with the interface of a layout module.

  Attributes:
    layout: its name, for errors.
    draw: the phantom's function `cohort`: options -> Cohort.
    draw_population: its function `population`: options -> attributes of new patients.
    ABOUT: citation and licence.
    effects: attributes of the records that a schema may name beside the phantom's own.
    KNOWN_COUNTERFACTUALS: whether its sources have `counterfactual(changes)`.
  """

  layout: str
  draw: Callable[..., Cohort]
  draw_population: Callable[..., list]
  ABOUT: About
  effects: Schema | None = None
  KNOWN_COUNTERFACTUALS: bool = False

  def read(
    self, root: str | os.PathLike = '', schema: Schema | None = None, **options: Any
  ) -> Cohort:
    """Draws the cohort; `options` are those of the phantom's `cohort`.

    `schema` selects attributes by name and may change their ranges; None keeps the
    phantom's own.

    Raises:
      ValueError: an unknown option, or an attribute the phantom does not have.
    """
    del root
    options = {'name': 'phantom', **options}
    unknown = options.pop('unknown', UNKNOWN[0])
    if unknown not in UNKNOWN:
      raise ValueError(
        f'The {self.layout} layout got unknown={unknown!r}, expected one of '
        f'{", ".join(UNKNOWN)}; change the options of the data section.'
      )
    cohort = self._call(self.draw, options)
    if schema is None:
      return cohort
    if unknown == 'missing':
      records = [
        dataclasses.replace(record, attributes=_expressed(record.attributes, schema))
        for record in cohort.records
      ]
      return Cohort(cohort.name, schema, tuple(records), cohort.notes)
    known = (*cohort.schema, *(self.effects or ()))
    for attribute in schema:
      _ = Schema(known)[attribute.name]
    return Cohort(cohort.name, schema, cohort.records, cohort.notes)

  def population(self, num: int, seed: int, /, **options: Any) -> list[dict[str, Any]]:
    """Attributes of `num` new patients, from the constants of the phantom's site.

    `options` are those of `read`; those that do not matter here (the cohort's name and
    seed) are ignored, therefore `num` and `seed` are positional.
    """
    known = set(inspect.signature(self.draw_population).parameters) - {'seed', 'num'}
    kept = {key: value for key, value in options.items() if key in known}
    return self._call(self.draw_population, {'seed': seed, 'num': num, **kept})

  def _call(self, function: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Calls a function of the phantom; the error for an unknown option lists all."""
    signature = inspect.signature(function)
    try:
      signature.bind(**options)
    except TypeError as error:
      raise ValueError(
        f'The layout {self.layout} got the options {sorted(options)} ({error}); its '
        f'options are {", ".join(signature.parameters)}. Change the options of the '
        'data section.'
      ) from error
    return function(**options)


def _expressed(values: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
  """The values that a schema of another data set can hold, by its names."""
  known = {name.lower(): value for name, value in values.items()}
  found = {}
  for attribute in schema:
    value = known.get((attribute.column or attribute.name).lower())
    try:
      attribute.encode(value)
    except ValueError:
      value = None
    found[attribute.name] = value
  return found


def _made_here(title: str) -> About:
  return About(
    title=title,
    homepage='',
    citation='',
    licence='Made by this package; no patient behind it',
    instructions='',
  )


# Age, sex and diagnosis; ventricles_ml, hippocampi_ml and cortex_mm may be named too.
BRAIN = Phantom(
  'phantom_brain',
  brain.cohort,
  brain.population,
  _made_here('Procedural heads with known ventricles, hippocampi and cortex'),
  effects=EFFECTS,
  KNOWN_COUNTERFACTUALS=True,
)
CARDIAC = Phantom(
  'phantom_cardiac',
  cardiac.cohort,
  cardiac.population,
  About(
    title='Procedural cardiac phantom: short-axis stacks with exact masks and volumes',
    homepage='',
    citation="""@software{ldm_jax,
  title={{ldm\\_jax}: private, controllable {3D} latent diffusion for medical imaging},
  author={{The ldm\\_jax authors}},
  year={2026},
}""",
    licence='Apache-2.0',
    instructions='',  # made, not downloaded
  ),
)
CHEST = Phantom(
  'phantom_chest',
  chest.cohort,
  chest.population,
  _made_here('Procedural chest films with known heart size and effusion'),
  KNOWN_COUNTERFACTUALS=True,
)
