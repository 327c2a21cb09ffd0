"""Laws of batches made in advance: the same ones, in any timing, errors where asked."""

import threading
import time

import pytest

from ldm_jax.data.prefetch import Prefetcher


def test_every_step_sees_the_batch_of_its_number_wherever_it_begins():
  with Prefetcher(lambda step: step * step, num_steps=9) as batch:
    assert [batch(step) for step in (3, 4, 5, 7, 8, 0, 1, 8)] == [
      step * step for step in (3, 4, 5, 7, 8, 0, 1, 8)
    ]


def test_the_next_batches_are_made_during_a_step_and_none_beyond_the_last():
  made, main = [], threading.get_ident()

  def make(step):
    assert threading.get_ident() != main
    made.append(step)

  with Prefetcher(make, num_steps=4, depth=2) as batch:
    batch(0)
    deadline = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < deadline:
      time.sleep(0.001)
    assert sorted(made) == [0, 1, 2]
    for step in (1, 2, 3):
      batch(step)
  assert sorted(made) == [0, 1, 2, 3]


def test_an_error_is_raised_by_the_step_that_needs_the_batch():
  def make(step):
    if step == 2:
      raise ValueError('batch 2')
    return step

  with Prefetcher(make, num_steps=5) as batch:
    assert batch(0) == 0 and batch(1) == 1
    with pytest.raises(ValueError, match='batch 2'):
      batch(2)


def test_a_slow_source_and_a_slow_step_overlap():
  def make(step):
    time.sleep(0.05)
    return step

  with Prefetcher(make, num_steps=8) as batch:
    began = time.monotonic()
    for step in range(8):
      batch(step)
      time.sleep(0.05)
  assert time.monotonic() - began < 0.7  # 0.8 one after the other
