"""A private prior of the attributes: histograms of each attribute and of chosen pairs.

Requests drawn from the prior resemble the private cohort without showing a row of it:
drawing is post-processing of one Gaussian release (`releases.private_histograms`).

Bins are public. A continuous attribute has `num_bins` equal bins over the range in its
schema (values outside count in the outermost bin), a categorical one a bin for each
category; each has a last bin for "missing". The volumes of a patient share one vote.

Without pairs, attributes are drawn independently and correlations are lost (a large
ventricle may come with a small body). A pair (parent, child) releases the joint
histogram of two attributes, and the child is drawn given its parent. A child has one
parent, so the pairs form trees.

The prior is a JSON-able dict: num_bins, shares {name: list}, pairs [[parent, child]],
joint [table of parent x child].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.store.split import Split
from ldm_jax.privacy import releases

Pairs = Sequence[Sequence[str]]


def compute(
  schema: Schema,
  num_bins: int,
  pairs: Pairs,
  split: Split,
  noise_multiplier: float,
  key: jax.Array,
  name: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Releases the prior of a private cohort; record the release in the ledger before.

  Sensitivity: sqrt(number of attributes + pairs), see `releases.private_histograms`.

  Args:
    schema: of k attributes.
    num_bins: bins of a continuous attribute.
    pairs: ((parent, child), ...) names.
    split: with attributes (v,k) encoded, patient_entries, num_patients (public).
    noise_multiplier: sigma > 0.
    key: secret key of this release alone.
    name: for the ledger.

  Returns:
    (prior, release).

  Raises:
    ValueError: the pairs do not form trees, or a number is out of range.
  """
  order(schema, pairs)
  sizes = num_shares(schema, num_bins)
  codes = to_bins(schema, num_bins, split.attributes)
  bins = dict(zip(schema.names, codes.T, strict=True))
  groups = split.patient_entries
  blocks = [releases.shares(bins[n], groups, sizes[n]) for n in schema.names]
  for parent, child in pairs:
    both = bins[parent] * sizes[child] + bins[child]
    blocks.append(releases.shares(both, groups, sizes[parent] * sizes[child]))
  found, made = releases.private_histograms(
    blocks, noise_multiplier, split.num_patients, key, name=name
  )
  return _prior(schema, num_bins, pairs, found), made


def uniform(schema: Schema, num_bins: int, pairs: Pairs = ()) -> dict[str, Any]:
  """A prior that is independent of any data: uniform over the bins, no missing values.

  Raises:
    ValueError: the pairs do not form trees.
  """
  order(schema, pairs)
  sizes = num_shares(schema, num_bins)

  def flat(size):
    return np.append(np.full(size - 1, 1 / (size - 1)), 0.0)

  single = [flat(sizes[name]) for name in schema.names]
  joint = [np.outer(flat(sizes[p]), flat(sizes[c])).ravel() for p, c in pairs]
  return _prior(schema, num_bins, pairs, [*single, *joint])


def draw(
  prior: Mapping[str, Any], schema: Schema, num: int, generator: np.random.Generator
) -> np.ndarray:
  """Draws encoded requests, (num, k) float32; a missing value is NaN.

  Args:
    prior: from `compute` or `uniform`.
    schema: the one it was computed with.
    num: number of requests.
    generator: numpy Generator.
  """
  num_bins, bins = prior['num_bins'], {}
  parents = {child: (i, parent) for i, (parent, child) in enumerate(prior['pairs'])}
  for name in order(schema, prior['pairs']):
    shares = np.asarray(prior['shares'][name])
    if name not in parents:
      bins[name] = generator.choice(len(shares), num, p=shares)
      continue
    number, parent = parents[name]
    table = np.asarray(prior['joint'][number])
    # Where the noisy table has an empty parent bin, use the child's own histogram.
    rows = np.where(table.sum(axis=1, keepdims=True) > 0, table, shares)
    rows = rows / rows.sum(axis=1, keepdims=True)
    below = np.cumsum(rows, axis=1)[bins[parent]][:, :-1]
    bins[name] = np.sum(generator.random((num, 1)) >= below, axis=1)
  codes = np.empty((num, len(schema)), np.float32)
  for column, attribute in enumerate(schema):
    found, place = bins[attribute.name], generator.random(num)
    if attribute.kind == 'continuous':
      codes[:, column] = 2 * (found + place) / num_bins - 1
    else:
      codes[:, column] = found
    missing = found == len(prior['shares'][attribute.name]) - 1
    codes[missing, column] = np.nan
  return codes


def num_shares(schema: Schema, num_bins: int) -> dict[str, int]:
  """Name -> number of bins, including the one for missing values."""
  return {a.name: (len(a.categories) or num_bins) + 1 for a in schema}


def to_bins(schema: Schema, num_bins: int, codes: np.ndarray) -> np.ndarray:
  """Encoded attributes (v,k) -> bins (v,k) int."""
  codes = np.asarray(codes, np.float64)
  bins = np.empty(codes.shape, int)
  for column, attribute in enumerate(schema):
    size, values = num_shares(schema, num_bins)[attribute.name], codes[:, column]
    known = np.nan_to_num(values)
    if attribute.kind == 'continuous':
      known = np.floor((np.clip(known, -1, 1) + 1) / 2 * num_bins)
    bins[:, column] = np.clip(known, 0, size - 2)
    bins[np.isnan(values), column] = size - 1
  return bins


def order(schema: Schema, pairs: Pairs) -> list[str]:
  """Names of the schema, parents before children.

  Raises:
    ValueError: an unknown name, a child with two parents, or a cycle.
  """
  pairs = [tuple(pair) for pair in pairs]
  children = [pair[-1] for pair in pairs]
  sound = len(set(children)) == len(children) and all(
    len(pair) == 2 and set(pair) <= set(schema.names) for pair in pairs
  )
  found = [name for name in schema.names if name not in children]
  while sound and len(found) < len(schema):
    ready = [c for p, c in pairs if p in found and c not in found]
    if not ready:
      break
    found += ready
  if not sound or len(found) < len(schema):
    raise ValueError(
      'expected adapt.privacy.releases.attributes.pairs (parent, child) of different '
      'attributes, each a child at most once and without cycles, got '
      f'{pairs}. Change the pairs; attributes are {", ".join(schema.names)}.'
    )
  return found


def _prior(schema, num_bins, pairs, found):
  sizes, names = num_shares(schema, num_bins), schema.names
  joint = found[len(names) :]
  return {
    'num_bins': num_bins,
    'shares': {n: f.tolist() for n, f in zip(names, found, strict=False)},
    'pairs': [list(pair) for pair in pairs],
    'joint': [
      table.reshape(sizes[parent], sizes[child]).tolist()
      for (parent, child), table in zip(pairs, joint, strict=True)
    ],
  }
