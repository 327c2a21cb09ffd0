"""The examples of each step of public training, as pure functions of the step.

Public data is drawn in shuffled epochs; private training draws in
`privacy/sampling.py`. Nothing here keeps state, so that a resumed run draws the same
examples as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np


def epoch_batch(
  num_examples: int, batch_size: int, seed: int, step: int, wrap: bool = False
) -> np.ndarray:
  """Returns the examples of one step, (batch_size,) int.

  Epoch e is a permutation that depends on (seed, e) only; step s takes positions
  s * batch_size ... of the concatenated epochs, so each epoch visits every example
  exactly once.

  Args:
    num_examples: size of the training set.
    batch_size: examples per step.
    seed: chooses the permutations.
    step: 0, 1, ...
    wrap: allow a batch larger than the set, which then holds examples repeatedly.

  Raises:
    ValueError: an empty set, or a batch larger than the set without `wrap`.
  """
  if num_examples < 1 or batch_size < 1 or step < 0:
    raise ValueError(
      'Expected at least one example, a positive batch_size and step >= 0, got '
      f'num_examples={num_examples}, batch_size={batch_size}, step={step}. Set '
      'batch_size in the config.'
    )
  if batch_size > num_examples and not wrap:
    raise ValueError(
      f'batch_size is {batch_size} but the cohort has {num_examples} examples; '
      'expected a batch no larger than the cohort. Lower batch_size in the config.'
    )
  position = step * batch_size + np.arange(batch_size)
  epochs, places = position // num_examples, position % num_examples
  indices = np.empty(batch_size, np.int64)
  for epoch in np.unique(epochs):
    order = generator(f'epoch:{seed}:{epoch}'.encode()).permutation(num_examples)
    chosen = epochs == epoch
    indices[chosen] = order[places[chosen]]
  return indices


def weighted_batch(
  weights: np.ndarray, batch_size: int, seed: int, step: int
) -> np.ndarray:
  """The examples of one step (batch_size,) int, each drawn by its weight.

  Args:
    weights: (n,) >= 0, of any sum above 0.
    batch_size: examples per step, drawn independently.
    seed, step: which decide the draw.
  """
  weights = np.asarray(weights, np.float64)
  draws = generator(f'weighted:{seed}:{step}'.encode())
  return draws.choice(len(weights), batch_size, p=weights / weights.sum())


def chunks(
  indices: np.ndarray, chunk_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Cuts a draw of any size into pieces of one fixed shape.

  Args:
    indices: (m,), m >= 0.
    chunk_size: length of every piece.

  Yields:
    (chunk_size,) int indices padded with index 0, and (chunk_size,) bool, false where
    padded. An empty draw yields nothing.
  """
  if chunk_size < 1:
    raise ValueError(f'Expected a positive chunk_size, got {chunk_size}. Set it.')
  indices = np.asarray(indices, np.int64)
  for start in range(0, indices.size, chunk_size):
    piece = indices[start : start + chunk_size]
    padded = np.zeros(chunk_size, np.int64)
    padded[: piece.size] = piece
    yield padded, np.arange(chunk_size) < piece.size


def generator(material: bytes) -> np.random.Generator:
  """Counter-based generator keyed by a hash, the same on every machine."""
  key = np.frombuffer(hashlib.sha256(material).digest()[:16], '<u8')
  return np.random.Generator(np.random.Philox(key=key))
