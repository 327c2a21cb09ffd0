"""What is asked of the generator: attribute values of volumes that do not exist.

Requests come from public knowledge only: a documented population, rows of the public
cohort, the user's own table, or a prior of the private cohort's attributes that was
released with noise. Rows of the private cohort are never requests.
"""

import csv
import pathlib

import numpy as np

from ldm_jax.data import sources
from ldm_jax.privacy import marginals

# What `releasing` keeps of the attributes' release, in the work folder.
PRIOR = ('store', 'release-attributes.json')


def draw(config, schema, public, prior=None):
  """Returns `config.sample.num` encoded requests, (n, k) float32.

  Args:
    config: the run's config.
    schema: attributes in order.
    public: prepared public split, or None.
    prior: of `privacy.marginals`, or None where the run has not released one.

  Raises:
    ValueError: if the named source of requests is not there, or a table lacks
      attributes.
  """
  num, origin = config.sample.num, config.sample.requests
  if origin == 'population':
    rows = sources.population(config.data, num, config.seed)
    return np.stack([schema.encode(row) for row in rows])
  if origin == 'public':
    if public is None:
      raise ValueError(
        "sample.requests is 'public', but data.public is empty. Give a table of "
        'requests: --config.sample.requests=FILE.csv.'
      )
    generator = np.random.default_rng((config.seed, 1))
    order = np.concatenate(
      [
        generator.permutation(len(public.ids))
        for _ in range(-(-num // len(public.ids)))
      ]
    )
    return public.attributes[order[:num]]
  if origin == 'private_prior':
    if prior is None:
      raise ValueError(
        "sample.requests is 'private_prior', but this work folder holds no released "
        'prior: the stage adapt makes it. Run --stages=adapt,sample.'
      )
    return marginals.draw(prior, schema, num, np.random.default_rng((config.seed, 2)))
  return _from_table(pathlib.Path(origin), schema, num)


def _from_table(path, schema, num):
  if not path.is_file():
    raise ValueError(
      f'sample.requests is {str(path)!r}, but must be population, public, '
      'private_prior, or an existing table with one column an attribute.'
    )
  with open(path, encoding='utf-8-sig', newline='') as file:
    delimiter = '\t' if path.suffix == '.tsv' else ','
    rows = list(csv.DictReader(file, delimiter=delimiter))
  if not rows or not set(schema.names) & set(rows[0]):
    raise ValueError(
      f'{path} holds no request: it needs a header with some of the attributes '
      f'{", ".join(schema.names)} and at least one row.'
    )
  return np.stack([schema.encode(rows[i % len(rows)]) for i in range(num)])
