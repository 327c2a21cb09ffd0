"""Laws of batches: epochs visit all, chunks hold each index once in one shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.data.batching import chunks, epoch_batch


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.data(), st.integers(0, 3))
def test_every_epoch_visits_every_example_once(num, data, seed):
  size = data.draw(st.integers(1, num))
  steps = 3 * num  # size whole passes of 3 epochs
  seen = np.concatenate([epoch_batch(num, size, seed, s) for s in range(steps)])
  for epoch in seen[: 3 * num].reshape(3, num):
    assert sorted(epoch) == list(range(num))


def test_a_batch_is_a_function_of_the_step_alone():
  late = epoch_batch(50, 8, 1, 123)
  for step in range(5):
    epoch_batch(50, 8, 1, step)
  assert np.array_equal(late, epoch_batch(50, 8, 1, 123))


def test_epochs_and_seeds_are_shuffled_differently():
  orders = [tuple(epoch_batch(20, 20, seed, s)) for seed in (0, 1) for s in (0, 1)]
  assert len(set(orders)) == 4


def test_a_batch_larger_than_the_cohort_is_an_error_unless_it_may_wrap():
  with pytest.raises(ValueError, match=r'batch_size is 5.*3 examples'):
    epoch_batch(3, 5, 0, 0)
  assert np.bincount(epoch_batch(3, 6, 0, 0, wrap=True)).tolist() == [2, 2, 2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 9))
def test_chunks_hold_every_index_once_in_one_shape(num, size):
  indices = np.arange(num) * 3 + 1
  pieces = list(chunks(indices, size))
  assert len(pieces) == -(-num // size)
  kept = [piece[mask] for piece, mask in pieces]
  assert np.array_equal(np.concatenate([*kept, []]), indices)
  for piece, mask in pieces:
    assert piece.shape == mask.shape == (size,)
    assert (piece[~mask] == 0).all()
