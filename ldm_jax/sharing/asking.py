"""What a recipient asks for: keywords, ranges or a table -> encoded requests (n,k).

`AGE=60` sets one value for all, `AGE=[60, 70]` one for each, `AGE='50:70'` draws from a
range, `SEX='F|M'` from some categories, None (or 'n/a') leaves it unknown to the model.
Attributes that are not named are drawn as `rest` says.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax.config import sample as sample_rules
from ldm_jax.config.parsing import suggest
from ldm_jax.data.cohorts.attributes import Attribute, Schema, is_missing
from ldm_jax.data.tables import table as tables
from ldm_jax.privacy import marginals
from ldm_jax.synthesis.requests import uniform

# How attributes that are not named are drawn.
RESTS = ('prior', 'samples', 'uniform', 'unknown')
TOLERANCE = 1e-5  # of codes in float32


def encode(
  schema: Schema,
  num: int,
  attributes: Mapping[str, Any],
  *,
  seed: int = 0,
  rest: str = 'uniform',
  prior: Mapping[str, Any] | None = None,
  samples: np.ndarray | None = None,
) -> np.ndarray:
  """Encoded requests (num,k) float32, NaN for unknown.

  Args:
    schema: of the model.
    num: how many.
    attributes: name (in any case) -> value, see the module.
    seed: of what is drawn.
    rest: one of RESTS. 'prior' draws from the released prior, 'samples' a row of what
      the samples beside the model were asked for, before the attributes that are named
      are set: they do not move the others.
    prior: of `privacy.marginals`, or None.
    samples: encoded requests (n,k), or None.

  Raises:
    ValueError: an attribute that the model does not know, or a value that it was not
      trained with.
  """
  if rest == 'prior' and prior is not None:
    codes = marginals.draw(prior, schema, num, np.random.default_rng((seed, 2)))
  elif rest == 'samples' and samples is not None:
    codes = _like_samples(samples, uniform(schema, num, seed), seed)
  elif rest == 'uniform':
    codes = uniform(schema, num, seed)
  elif rest == 'unknown':
    codes = np.full((num, len(schema)), np.nan, np.float32)
  else:
    lacks = {'prior': 'a prior'} if prior is None else {}
    lacks |= {'samples': 'samples'} if samples is None else {}
    have = [each for each in RESTS if each not in lacks]
    raise ValueError(
      f'rest is {rest!r}, but must be one of {", ".join(have)}'
      + (f'; this model came without {lacks[rest]}' if rest in lacks else '')
      + '.'
    )
  for name, value in attributes.items():
    column = schema.names.index(spelled(schema, name))
    attribute = schema.attributes[column]
    # Of its own, so that naming one attribute leaves the draws of the others.
    generator = np.random.default_rng((seed, 4, column))
    codes[:, column] = _codes(attribute, value, num, generator)
  return codes


def drawn_by(
  seed: int, rest: str, prior: Mapping[str, Any] | None, samples: np.ndarray | None
) -> dict[str, Any]:
  """Options of `encode` and `of_rows`; '' is the best `rest` that there is."""
  best = 'samples' if samples is not None else 'uniform'
  rest = rest or ('prior' if prior is not None else best)
  return {'seed': seed, 'rest': rest, 'prior': prior, 'samples': samples}


def requested(schema: Schema, text: str) -> np.ndarray | None:
  """What samples were asked for, encoded (n,k), of their participants.tsv; or None.

  An attribute that the table lacks is unknown.

  Raises:
    ValueError: a value that the model was not trained with.
  """
  read = csv.DictReader(io.StringIO(text), delimiter='\t')
  rows = [{a.name: row.get(a.name) for a in schema} for row in read]
  return of_rows(schema, rows, len(rows), rest='unknown') if rows else None


def _like_samples(samples, drawn, seed):
  """Rows of samples at random; drawn codes where all of these leave one unknown."""
  generator = np.random.default_rng((seed, 3))
  codes = samples[generator.integers(len(samples), size=len(drawn))]
  return np.where(np.isnan(samples).all(0), drawn, codes).astype(np.float32)


def spelled(schema: Schema, name: str) -> str:
  """The name of an attribute as the schema writes it, whatever its case.

  Raises:
    ValueError: the model does not know it.
  """
  known = {each.lower(): each for each in schema.names}
  if name.lower() not in known:
    raise ValueError(
      f'The model knows no attribute {name!r}.{suggest(name, schema.names)} It knows '
      f'{", ".join(map(described, schema))}.'
    )
  return known[name.lower()]


def described(attribute: Attribute) -> str:
  """An attribute with its values: 'AGE (18 to 95 years)', 'SEX (0 female, 1 male)'."""
  if attribute.kind == 'categorical':
    words = list(map(str, attribute.categories))
    if attribute.labels:
      words = [f'{c} {label}' for c, label in zip(words, attribute.labels, strict=True)]
    return f'{attribute.name} ({", ".join(words)})'
  low, high = attribute.limits
  return f'{attribute.name} ({f"{low:g} to {high:g} {attribute.unit}".rstrip()})'


def from_table(schema: Schema, path: str | os.PathLike) -> list[dict[str, Any]]:
  """Rows of a table as {name: value}; columns that are no attribute are left out.

  Raises:
    ValueError: no table, or none of its columns is an attribute of the model.
  """
  if not pathlib.Path(path).is_file():
    raise ValueError(f'The table of requests {str(path)!r} does not exist.')
  table = tables.read(pathlib.Path(path))
  columns = {column.lower(): column for column in table.columns}
  named = [
    dataclasses.replace(a, column=columns[a.name.lower()])
    for a in schema
    if a.name.lower() in columns
  ]
  if not named or not table.rows:
    raise ValueError(
      f'{path} has no requests; expected a header with some of the attributes '
      f'{", ".join(schema.names)} and at least one row.'
    )
  chosen = Schema(tuple(named))
  return [table.attributes(index, chosen) for index in range(len(table.rows))]


def of_rows(
  schema: Schema, rows: Sequence[Mapping[str, Any]], num: int, **options: Any
) -> np.ndarray:
  """As `encode`, row after row and from the first again; cells are single values."""
  names = list(dict.fromkeys(name for row in rows for name in row))
  turns = [rows[index % len(rows)] for index in range(num)]
  columns = {name: [row.get(name) for row in turns] for name in names}
  return encode(schema, num, columns, **options)


def of_requests(
  schema: Schema,
  requests: np.ndarray | Sequence[Mapping[str, Any]],
  num: int | None,
  **options: Any,
) -> np.ndarray:
  """As `of_rows` of rows; of encoded requests (n,k) these, in turn if there is a `num`.

  Raises:
    ValueError: encoded requests of another shape.
  """
  if not isinstance(requests, np.ndarray):
    return of_rows(schema, requests, num or len(requests), **options)
  if requests.ndim != 2 or requests.shape[1] != len(schema):
    raise ValueError(
      f'Expected encoded requests (n, {len(schema)}), got the shape {requests.shape}; '
      'give those of model.requests.'
    )
  return requests if num is None else requests[np.arange(num) % len(requests)]


def within(schema: Schema, texts: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
  """{'esed': '1|0'} -> {'ESED': ('1', '0')}, for `synthesis.within_patient`.

  Raises:
    ValueError: an attribute that the model does not know, or values that cannot be
      those of a patient's volumes.
  """
  try:
    values = sample_rules.split_values(texts)
  except ValueError as error:
    raise ValueError(
      f'The values within a patient are {dict(texts)}; expected two or more of each '
      "attribute, as many of each and different ones, such as ESED='1|0'."
    ) from error
  return {spelled(schema, name): each for name, each in values.items()}


def advice(text: str) -> str:
  """A message of `synthesis.changes` with advice for who calls `SharedModel.edit`."""
  own = "Pass the scan's own value, own={...}, or an absolute number"
  return (
    text.replace('Set an absolute number in counterfactual.set', own)
    .replace(' Change counterfactual.set.', '')
    .replace('Name one in counterfactual.set', 'Name one')
  )


def _codes(attribute, value, num, generator):
  """(num,) codes of one attribute."""
  if isinstance(value, str):
    drawn = _drawn(attribute, value, num, generator)
    if drawn is not None:
      return drawn
  if isinstance(value, list | tuple | np.ndarray):
    if len(value) != num:
      raise ValueError(
        f'{attribute.name} has {len(value)} values for {num} volumes; give one value, '
        'or one for each volume.'
      )
    return np.array([code(attribute, each) for each in value], np.float32)
  return np.full(num, code(attribute, value), np.float32)


def _drawn(attribute, text, num, generator):
  """(num,) codes of '50:70' or 'F|M'; None where the text is one value."""
  if attribute.kind == 'continuous' and ':' in text:
    low, high = (code(attribute, part.strip()) for part in text.split(':', 1))
    if not low <= high:
      raise ValueError(
        f'{attribute.name} = {text!r} is no range; expected two numbers, such as '
        f'{attribute.limits[0]:g}:{attribute.limits[1]:g}.'
      )
    return generator.uniform(low, high, num).astype(np.float32)
  if attribute.kind == 'categorical' and '|' in text:
    codes = [code(attribute, part.strip()) for part in text.split('|')]
    return generator.choice(codes, num).astype(np.float32)
  return None


def code(attribute: Attribute, value: Any) -> float:
  """The code of one value; NaN for an unknown one.

  Raises:
    ValueError: a value that the model was not trained with.
  """
  if is_missing(value):
    return np.nan
  try:
    found = attribute.encode(value)
  except ValueError:
    raise ValueError(
      f'{attribute.name} = {value!r} is not among the values of {described(attribute)}.'
    ) from None
  if attribute.kind == 'continuous' and abs(found) > 1 + TOLERANCE:
    raise ValueError(
      f'{attribute.name} = {value} lies outside the range that the model was trained '
      f'with: {described(attribute)}. Ask for a value within it.'
    )
  return found
