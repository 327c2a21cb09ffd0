"""What the layouts of phantoms share: no files, the options are their parameters.

Beside them each takes `unknown`: 'error', or 'missing' for a phantom that stands in for
public patients of another schema. Then an attribute of the schema that it does not know
by name, in whatever case, or whose value the schema cannot hold, is missing.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ldm_jax.data.attributes import Schema
from ldm_jax.data.cohort import Cohort

UNKNOWN = ('error', 'missing')


def read(
  layout: str,
  draw: Callable[..., Cohort],
  schema: Schema | None,
  options: Mapping[str, Any],
  effects: Schema | None = None,
) -> Cohort:
  """Draws a cohort; `schema` selects and re-ranges attributes by name.

  Args:
    layout: its name, for errors.
    draw: the phantom's `cohort`.
    schema: None for the phantom's own.
    options: keyword arguments of `draw`.
    effects: attributes of the records that a schema may name beside the phantom's own.

  Raises:
    ValueError: an unknown option, or an attribute the phantom does not have.
  """
  options = {'name': 'phantom', **options}
  unknown = options.pop('unknown', UNKNOWN[0])
  if unknown not in UNKNOWN:
    raise ValueError(
      f'The {layout} layout came with unknown={unknown!r}; required is one of '
      f'{", ".join(UNKNOWN)}. Change the options of the data section.'
    )
  cohort = call(layout, draw, options)
  if schema is None:
    return cohort
  if unknown == 'missing':
    records = [
      dataclasses.replace(record, attributes=_expressed(record.attributes, schema))
      for record in cohort.records
    ]
    return Cohort(cohort.name, schema, tuple(records), cohort.notes)
  known = (*cohort.schema, *(effects or ()))
  for attribute in schema:
    _ = Schema(known)[attribute.name]
  return Cohort(cohort.name, schema, cohort.records, cohort.notes)


def population(
  layout: str,
  draw: Callable[..., list],
  num: int,
  seed: int,
  options: Mapping[str, Any],
) -> list[dict[str, Any]]:
  """Attributes of `num` new patients; `options` are those of `read`.

  Those that say nothing about the population (the cohort's name, its own seed) are
  left out.
  """
  known = set(inspect.signature(draw).parameters) - {'seed', 'num'}
  kept = {key: value for key, value in options.items() if key in known}
  return call(layout, draw, {'seed': seed, 'num': num, **kept})


def call(layout: str, function: Callable[..., Any], options: Mapping[str, Any]) -> Any:
  """Calls a function of the phantom; an unknown option is an error that lists them."""
  signature = inspect.signature(function)
  try:
    signature.bind(**options)
  except TypeError as error:
    raise ValueError(
      f'The {layout} layout came with the options {sorted(options)} ({error}); '
      f'its options are {", ".join(signature.parameters)}. Change the options of the '
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
