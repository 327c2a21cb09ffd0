"""The brain phantom as a layout: no files, the options are its parameters."""

from __future__ import annotations

from typing import Any

from ldm_jax.data.about import About
from ldm_jax.data.attributes import Schema
from ldm_jax.data.cohort import Cohort
from ldm_jax.data.layouts import procedural
from ldm_jax.data.phantom import brain, brain_population

ABOUT = About(
  title='Procedural heads with known ventricles, hippocampi and cortex',
  homepage='',
  citation='',
  licence='Made by this package; no patient behind it',
  instructions='',
)
# The sources of its records have `counterfactual(changes)`.
KNOWN_COUNTERFACTUALS = True


def read(root: str = '', schema: Schema | None = None, **options: Any) -> Cohort:
  """Draws the cohort; `options` are those of `phantom.brain.cohort`.

  `schema` selects and re-ranges attributes by name; the default has age, sex and
  diagnosis. Their effects ventricles_ml, hippocampi_ml and cortex_mm may be named too.

  Raises:
    ValueError: an unknown option, or an attribute the phantom does not have.
  """
  del root
  effects = brain_population.EFFECTS
  return procedural.read('phantom_brain', brain.cohort, schema, options, effects)


def population(num: int, seed: int, /, **options: Any) -> list[dict[str, Any]]:
  """Attributes of `num` new subjects, from the constants of the phantom's site.

  `options` are those of `read`; a seed among them belongs to the cohort, not to this
  draw, hence the positional arguments.
  """
  return procedural.population('phantom_brain', brain.population, num, seed, options)
