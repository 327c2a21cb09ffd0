"""Seeded draws of phantom patients, and checks of what is asked of them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ldm_jax.data.cohorts.attributes import Schema

# A patient's identity or attributes by name.
Values = Mapping[str, Any]
# The stream of `population`: no cohort can have this name, so no patient is shared.
REQUESTS = '\0requests'


def generator(*parts: Any) -> np.random.Generator:
  """A random stream of its own for each tuple of integers and texts."""
  digest = hashlib.sha256(repr(parts).encode()).digest()
  words = np.frombuffer(digest, np.uint32)
  return np.random.Generator(np.random.Philox(np.random.SeedSequence(words.tolist())))


def patient_id(cohort: str, index: int) -> str:
  """'public-P00012': the cohort's name keeps the patients of cohorts apart."""
  return f'{cohort}-P{index:05d}'


def check_draw(seed: int, index: int, site: str, sites: Collection[str]) -> None:
  """Raises ValueError for an unknown site, or a negative seed or index."""
  if site not in sites:
    raise ValueError(
      f'expected site to be one of {sorted(sites)}, got {site!r}; change the options '
      'of the data section'
    )
  if seed < 0 or index < 0:
    raise ValueError(
      f'expected a seed and an index of at least 0, got seed={seed}, index={index}'
    )


def check_counts(phantom: str, cohort: str, **counts: int) -> None:
  """Raises ValueError for a count below 1, naming the phantom and its cohort."""
  for name, count in counts.items():
    if count < 1:
      raise ValueError(
        f'{phantom} phantom {cohort!r}: expected {name} to be at least 1, got {count}; '
        'change the options of the data section'
      )


def check_attributes(
  phantom: str,
  attributes: Values,
  schema: Schema,
  effects: Schema | None = None,
) -> None:
  """Checks the attributes that a patient is rendered with.

  Args:
    phantom: its name, for errors.
    attributes: name -> value.
    schema: attributes that are required. A ten-thousandth of a range is allowed beyond
      its ends, because encoding to float32 and back is not exact.
    effects: attributes that may be set too; sizes, so above their lower limit.

  Raises:
    ValueError: attributes that are missing, unknown or out of range.
  """
  optional = Schema() if effects is None else effects
  missing = [name for name in schema.names if name not in attributes]
  unknown = sorted(set(attributes) - {*schema.names, *optional.names})
  if missing or unknown:
    allowed = f' and optionally {list(optional.names)}' if len(optional) else ''
    raise ValueError(
      f'{phantom} phantom: expected the attributes {list(schema.names)}{allowed}, got '
      f'{sorted(attributes)}; change counterfactual.set'
    )
  for attribute in (*schema, *optional):
    if attribute.name not in attributes:
      continue
    value = attributes[attribute.name]
    if attribute.kind == 'categorical':
      valid, expected = value in attribute.categories, f'one of {attribute.categories}'
    else:
      low, high = attribute.low, attribute.high
      is_effect = attribute.name in optional.names
      slack = 0.0 if is_effect else 1e-4 * (high - low)
      valid = (
        isinstance(value, int | float | np.number)
        and low - slack <= value <= high + slack
        and not (is_effect and value == low)
      )
      above = 'above ' if is_effect else ''
      expected = f'{above}{low:g} to {high:g} {attribute.unit}'.rstrip()
    if not valid:
      raise ValueError(
        f'{phantom} phantom: expected {attribute.name} to be {expected}, got '
        f'{value!r}; change counterfactual.set'
      )
