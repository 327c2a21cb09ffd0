"""The cardiac phantom as a layout: no files, the options are its parameters."""

from __future__ import annotations

from typing import Any

from ldm_jax.data.attributes import Schema
from ldm_jax.data.cohort import Cohort
from ldm_jax.data.phantom import cardiac


def read(root: str = '', schema: Schema | None = None, **options: Any) -> Cohort:
  """Draws the cohort; `options` are those of `phantom.cardiac.cohort`.

  `schema` selects and re-ranges attributes by name; the default has all 14.

  Raises:
    ValueError: an unknown option, or an attribute the phantom does not have.
  """
  del root
  cohort = _call(cardiac.cohort, {'name': 'phantom', **options})
  if schema is None:
    return cohort
  for attribute in schema:
    _ = cohort.schema[attribute.name]
  return Cohort(cohort.name, schema, cohort.records, cohort.notes)


def population(num: int, seed: int, **options: Any) -> list[dict[str, Any]]:
  """Attributes of `num` new patients, from the constants of the phantom's site."""
  kept = {k: v for k, v in options.items() if k in ('site', 'shape', 'spacing_mm')}
  return _call(cardiac.population, {'seed': seed, 'num': num, **kept})


def _call(function, options):
  code = function.__code__
  known = code.co_varnames[: code.co_argcount]
  unknown = sorted(set(options) - set(known))
  if unknown:
    raise ValueError(
      f'The phantom_cardiac layout has no option {", ".join(unknown)}; its options are '
      f'{", ".join(known)}. Change data.<cohort>.options.'
    )
  return function(**options)
