"""Requests: the attribute values of the volumes to generate, and as rows of a table.

Requests come from public knowledge only: the schema's ranges, a documented population,
the user's own table, or a prior of the private cohort's attributes that was released
with noise. Rows of the public cohort are used only if the config says so, because the
table of samples then shows values of real people. Rows of other cohorts are never used.
Where a patient has several volumes, each of these has a request (`within_patient`).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_jax.config import sample as sample_rules
from ldm_jax.data import cohorts_of_config
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.tables import table as tables
from ldm_jax.privacy import marginals
from ldm_jax.synthesis import within_patient
from ldm_jax.types import Config

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split

# Where `private_releases` stores the release of the attributes, in the work folder.
PRIOR = ('store', 'release-attributes.json')
# The column of samples.csv that says where a row's values come from.
COLUMN = 'requests'
ORIGINS = {
  'uniform': 'uniform within the ranges of the schema; values of nobody',
  'population': "drawn from the layout's documented population; values of nobody",
  'public': 'attribute values of real public patients',
  'private_prior': "drawn from the private cohort's prior, released with noise",
}


def origin(config: Config | Mapping[str, Any]) -> str:
  """One sentence on whose attribute values the requests of a config are.

  Args:
    config: the run's config, or the plain dict of it.
  """
  section = config['sample']
  name = section['requests']
  text = f'table {pathlib.Path(name).name}: attribute values as they were given'
  if name in ORIGINS:
    text = f'{name}: {ORIGINS[name]}'
  within = sample_rules.split_values(section.get('within_patient') or {})
  changed = ', '.join(f'{key} = {"|".join(each)}' for key, each in within.items())
  return f'{text}; within a patient {changed}' if changed else text


def draw(
  config: Config,
  schema: Schema,
  public: Split | None,
  prior: Mapping[str, Any] | None = None,
) -> np.ndarray:
  """Returns `config.sample.num` encoded requests, (n, k) float32, patient by patient.

  Args:
    config: the run's config.
    schema: attributes in order.
    public: prepared public split, or None.
    prior: of `privacy.marginals`, or None where the run has not released one.

  Raises:
    ValueError: if the named source of requests does not exist, a table has none of the
      attributes, or `sample.within_patient` cannot be made of them.
  """
  num, name = config.sample.num, config.sample.requests
  within = sample_rules.within_patient(config)
  num_patients = -(-num // within_patient.num_volumes(within))
  people = _of_patients(config, schema, public, prior, num_patients)
  is_table = name not in ORIGINS
  return within_patient.expanded(within, schema, people, config.seed, is_table)[:num]


def _of_patients(config, schema, public, prior, num):
  """Encoded requests (num,k), one for each synthetic patient."""
  name = config.sample.requests
  if name == 'uniform':
    return uniform(schema, num, config.seed)
  if name == 'population':
    rows = cohorts_of_config.population(config.data, num, config.seed)
    found = np.stack([schema.encode(row) for row in rows])
    known = [any(attribute.name in row for row in rows) for attribute in schema]
    # Attributes that the population does not document are drawn uniformly.
    return np.where(known, found, uniform(schema, num, config.seed))
  if name == 'public':
    if public is None:
      raise ValueError(
        "sample.requests is 'public', but data.public is empty. Use "
        "sample.requests='uniform', or give a table of requests: "
        '--config.sample.requests=FILE.csv.'
      )
    return public.attributes[public_rows(config.seed, len(public.ids), num)]
  if name == 'private_prior':
    if prior is None:
      raise ValueError(
        "sample.requests is 'private_prior', but this work folder has no released "
        'prior, which the stage adapt makes. Run --stages=adapt,sample.'
      )
    return marginals.draw(prior, schema, num, np.random.default_rng((config.seed, 2)))
  return _from_table(pathlib.Path(name), schema, num)


def public_rows(seed: int, size: int, num: int) -> np.ndarray:
  """Rows (num,) of a public cohort of some size, each as often as the others."""
  generator = np.random.default_rng((seed, 1))
  orders = [generator.permutation(size) for _ in range(-(-num // size))]
  return np.concatenate(orders)[:num]


def check_not_copied(
  config: Config, vectors: np.ndarray, splits: Mapping[str, Split]
) -> None:
  """Finds records of patients who are not public in a table of requests.

  samples.csv and the report show every request, so a table made from the private cohort
  would publish its rows. Requests with fewer than two continuous attributes are not
  checked, because an age and a sex agree by chance.

  Args:
    config: the run's config.
    vectors: encoded requests, (n, k), of `draw`.
    splits: name -> data.store.Split of the prepared cohorts.

  Raises:
    ValueError: under privacy, for a request whose attributes all equal those of a
      record; without privacy a warning is printed.
  """
  name = config.sample.requests
  if name in ORIGINS:
    return
  for cohort in [key for key in ('private', 'test') if key in splits]:
    records, schema = np.asarray(splits[cohort].attributes), splits[cohort].schema
    within = sample_rules.within_patient(config)
    rows = zip(*within_patient.told(within, schema, vectors), strict=True)
    num = sum(
      any(_is_record(vector, records, schema) for vector in row) for row in rows
    )
    if not num:
      continue
    message = (
      f'{num} of the {len(vectors)} requests of {name} are records of patients of '
      f'data.{cohort}, which samples.csv and the report would show. Change or remove '
      "them, or take sample.requests='private_prior' or 'uniform'."
    )
    if config.adapt.privacy is not None:
      raise ValueError(message)
    print(f'WARNING: {message}')


def _is_record(vector, records, schema):
  named = np.isfinite(vector)
  continuous = [attribute.kind == 'continuous' for attribute in schema]
  if np.sum(named & continuous) < 2:
    return False
  # Tables are often written with fewer digits than the cohort's own.
  same = np.isclose(records[:, named], vector[named], rtol=0, atol=1e-5)
  return bool(same.all(axis=1).any())


def uniform(schema: Schema, num: int, seed: int) -> np.ndarray:
  """Encoded requests (num,k): each attribute by itself, uniform in its range."""
  generator = np.random.default_rng((seed, 3))
  columns = [
    generator.integers(len(attribute.categories), size=num)
    if attribute.kind == 'categorical'
    else generator.uniform(-1, 1, num)
    for attribute in schema
  ]
  return np.stack(columns, axis=1).astype(np.float32)


def _from_table(path, schema, num):
  if not path.is_file():
    raise ValueError(
      f'sample.requests is {str(path)!r}, but must be uniform, population, '
      'private_prior, public, or an existing table with one column per attribute.'
    )
  needed = (
    f'{path} has no requests: it needs a header with some of the attributes '
    f'{", ".join(schema.names)} and at least one row.'
  )
  try:
    table = tables.read(path)  # decimal commas, spellings and units as in every table
  except ValueError as error:
    raise ValueError(f'{needed} ({error})') from error
  named = [dataclasses.replace(a, column='') for a in schema if a.name in table.columns]
  if not named:
    raise ValueError(needed)
  rows = [
    table.attributes(index, Schema(tuple(named))) for index in range(len(table.rows))
  ]
  return np.stack([schema.encode(rows[i % len(rows)]) for i in range(num)])


def row(schema: Schema, vector: np.ndarray) -> dict[str, Any]:
  """Encoded attributes (k,) as {name: value in a table}; '' for unknown."""
  decoded = schema.decode(vector)
  return {
    name: ''
    if value is None
    else round(value, 4)
    if isinstance(value, float)
    else value
    for name, value in decoded.items()
  }
