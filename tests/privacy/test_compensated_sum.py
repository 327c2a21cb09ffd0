"""Laws of sums that are rounded once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import prng
from ldm_jax.privacy import clipping, compensated_sum
from ldm_jax.privacy.gradients import clipped_sum

NUM = 16_384


def crossing(num, clip_norm):
  """Lengths (num,) of gradients: the first patient takes the sum over a power of 2.

  Half of them fill the sum up to it; the others contribute little more than half of
  what float32 resolves above it, which rounds up there and to little below.
  """
  length = np.float32(clip_norm * (1 - clipping.MARGIN))
  power = 2.0 ** np.floor(np.log2(length * num / 2))
  filling = int(np.ceil(power / length)) + 1
  lengths = np.full(num, 1.2 * power * 2.0**-24, np.float32)
  lengths[:filling] = 10 * clip_norm
  # The first patient makes the difference: the sum of all is just above the power.
  lengths[1] = max(power + 0.01 * length - (filling - 1) * float(length), 0.0)
  return lengths


def plain_sum(terms):
  return np.cumsum(terms, dtype=np.float32)[-1]


def summed(terms):
  start = compensated_sum.zeros(jnp.zeros(()))
  add = lambda so_far, term: (compensated_sum.plus(so_far, term), None)
  return jax.jit(lambda terms: jax.lax.scan(add, start, terms)[0])(terms)


@pytest.mark.parametrize('num', [512, 2048, NUM])
def test_a_sum_is_the_exact_one_rounded_once(num):
  for seed in range(3):
    terms = np.random.default_rng(seed).normal(size=num).astype(np.float32)
    terms[::2] *= 1e-5
    found, exact = complex(summed(terms)), np.sum(terms.astype(np.float64))
    assert found.real == np.float32(exact)
    both = found.real + found.imag
    assert both == pytest.approx(exact, abs=num**2 * 2.0**-48)


@pytest.mark.parametrize('clip_norm', [1.0, 0.3])
@pytest.mark.parametrize('num', [1024, NUM])
@pytest.mark.parametrize('microbatch', [1, 64])
def test_one_patient_moves_a_sum_by_at_most_the_clip_norm(num, clip_norm, microbatch):
  """[Casacuberta22]: rounding steps depend on which power of two a sum has passed."""
  lengths = crossing(num, clip_norm)
  clipped = np.minimum(lengths, np.float32(clip_norm * (1 - clipping.MARGIN)))
  moved = plain_sum(clipped) - plain_sum(np.where(np.arange(num) == 0, 0, clipped))
  assert moved > 1.001 * clip_norm  # what float32 alone would give

  loss = lambda trained, example, key: trained['w'] * example
  keys = prng.numbered(prng.key(0), num)
  total = jax.jit(
    lambda mask: clipped_sum(
      *(loss, {'w': jnp.float32(1)}, lengths, mask, keys, clip_norm, microbatch)
    )
  )
  everyone = np.ones(num, bool)
  without = everyone & (np.arange(num) != 0)
  difference = float(total(everyone)['w']) - float(total(without)['w'])
  assert 0.99 * clip_norm < difference <= clip_norm


def test_chunks_are_added_to_what_was_lost_before():
  """Terms too small for float32 beside the sum count all the same."""
  sums = {'w': compensated_sum.zeros(jnp.zeros(3))}
  sums = compensated_sum.add(sums, {'w': jnp.full(3, 2.0**24)})
  for _ in range(3):
    sums = compensated_sum.add(sums, {'w': jnp.full(3, 0.75)})
  np.testing.assert_array_equal(compensated_sum.rounded(sums)['w'], 2.0**24 + 2)
