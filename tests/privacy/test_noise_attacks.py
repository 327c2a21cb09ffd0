"""Attacks on the arithmetic of noise, each of which tells on float32 normals and fails
to tell on the noise that is used. [Mironov12]"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldm_jax.privacy import discrete_gaussian, finite_precision, noise, secret_key
from ldm_jax.privacy.releases import clip_rows, private_mean

SIGMA, CLIP_NORM = 1.3, 1.0
ROWS = np.random.default_rng(0).normal(size=(20, 7))


def float_normals():
  """All standard normals that a word's 23 bits can become (jax.random.normal)."""
  one = np.float32(1)
  mantissa = np.arange(2**23, dtype=np.uint32) | one.view(np.uint32)
  low = np.nextafter(-one, np.float32(0))
  uniform = np.maximum(low, (mantissa.view(np.float32) - one) * (one - low) + low)
  found = np.sqrt(np.float32(2)) * jax.jit(jax.lax.erf_inv)(uniform)
  return np.unique(np.asarray(found))


@pytest.fixture(scope='module')
def grid_of_floats():
  return float_normals()


def attainable(seen, total, scale, normals):
  """Share of the coordinates that one of these normals, added in float32, explains."""
  total, scale = np.float32(total), np.float32(scale)
  place = np.searchsorted(normals, (seen.astype(float) - total) / float(scale))
  explained = np.zeros(seen.shape, bool)
  for near in range(-3, 4):
    n = normals[np.clip(place + near, 0, normals.size - 1)]
    explained |= total + scale * n == seen
  return explained.mean()


def test_the_attack_tells_who_took_part_in_a_step_of_float32_normals(grid_of_floats):
  """The control: without it, the laws below would show nothing."""
  key, size = jax.random.key(0, impl='threefry2x32'), 4000
  with_ = np.random.default_rng(1).normal(size=size).astype(np.float32)
  without = with_ + np.float32(0.01)
  scale = np.float32(SIGMA * CLIP_NORM)
  seen = np.asarray(with_ + scale * jax.random.normal(key, (size,)))
  assert attainable(seen, with_, scale, grid_of_floats) == 1.0
  assert attainable(seen, without, scale, grid_of_floats) < 0.6


def step_outcomes(total):
  noisy = noise.add_noise(
    {'w': jnp.asarray(total)}, secret_key.new_noise_key(2), 3, SIGMA, CLIP_NORM
  )['w']
  return np.asarray(noisy, float) / float(noise.grid(SIGMA, CLIP_NORM))


@pytest.mark.parametrize('offset', [0.0, 1e-3, 0.123456])
def test_the_grid_of_a_step_is_public_and_says_nothing_of_the_sum(offset):
  """Whatever the sum beneath, outcomes are multiples of one spacing, and their last
  bits are uniform."""
  size = 200_000
  base = np.random.default_rng(3).normal(size=size).astype(np.float32)
  found = step_outcomes(base + np.float32(offset))
  np.testing.assert_array_equal(found, np.round(found))
  for modulus in (2, 64):
    counts = np.bincount((found % modulus).astype(int), minlength=modulus)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_every_cell_of_the_grid_holds_hundreds_of_floats_of_noise():
  """Also where floats are sparsest, at the end of the noise."""
  spacing = float(noise.grid(SIGMA, CLIP_NORM))
  end = np.float32(finite_precision.END * SIGMA * CLIP_NORM)
  assert spacing / float(np.spacing(end)) >= 256
  assert spacing <= 2.0**-12 * SIGMA * CLIP_NORM


def test_a_sum_does_not_show_in_the_chances_of_the_cells():
  """Cells of one coordinate, far out where float32 normals left gaps."""
  size, spacing = 400_000, float(noise.grid(1.0, 1.0))
  rng = np.random.default_rng(5)
  words = rng.integers(0, 2**32, (4, size), dtype=np.uint32)
  words[0] >>= np.uint32(12)  # only lengths of at least 4.1 deviations
  drawn = np.asarray(jax.jit(noise.normals_of_words)(*words))
  for total in (np.float32(0.0), np.float32(1 / 3), np.float32(1e-4)):
    sums = (total + drawn)[np.abs(drawn) > 4]
    inner = np.floor(sums / spacing * 16) % 16  # sixteenths of a cell
    counts = np.bincount(inner.astype(int), minlength=16)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_the_grid_of_a_mean_is_public_whoever_takes_part():
  """Seven numbers at small epsilon: with float32 normals the attack told in 12 of 12
  trials. Now each outcome is a multiple of a spacing that follows from public numbers,
  and any multiple is possible, with and without the last patient."""
  sigma = 9.0
  spacing, deviation = discrete_gaussian.grid(sigma, CLIP_NORM)
  for trial in range(12):
    key = secret_key.new_noise_key(trial)
    for rows in (ROWS, ROWS[:-1]):
      clipped = clip_rows(rows, CLIP_NORM)
      noisy = discrete_gaussian.noisy_sum(clipped, CLIP_NORM, sigma, key)
      whole = noisy / spacing
      np.testing.assert_array_equal(whole, np.round(whole))
      # What is left after the sum of either world is whole, so both explain it.
      for world in (ROWS, ROWS[:-1]):
        known = discrete_gaussian.on_grid(clip_rows(world, CLIP_NORM), spacing)
        needed = whole - known.sum(axis=0)
        np.testing.assert_array_equal(needed, np.round(needed))
        assert np.all(np.abs(needed) < 9 * deviation)


def test_a_mean_is_the_noisy_sum_over_the_public_number():
  key = secret_key.new_noise_key(7)
  mean, release = private_mean(ROWS, CLIP_NORM, SIGMA, 20, key)
  clipped = clip_rows(ROWS, CLIP_NORM)
  noisy = discrete_gaussian.noisy_sum(clipped, CLIP_NORM, SIGMA, key)
  np.testing.assert_array_equal(mean, np.float32(noisy / 20))
  assert release['noise'] == finite_precision.DISCRETE


def test_training_noise_reaches_beyond_eight_deviations_and_ends_where_stated():
  """float32 normals ended at 5.42, so that a patient could cause the impossible."""
  zeros = np.zeros(17, np.uint32)
  # G = 79: all coins but the last one are tails; then M and the angle at their most.
  c = np.full(17, 0xFFFFFF00, np.uint32)
  d = np.append(np.uint32(1), 1 << np.arange(16, dtype=np.uint32) // 2)[:17]
  lengths = np.abs(np.asarray(noise.normals_of_words(zeros, zeros, c, d & 255)))
  assert lengths.max() > 10.4
  rng = np.random.default_rng(0)
  words = rng.integers(0, 2**32, (4, 100_000), dtype=np.uint32)
  words[0] = 0
  words[1, ::2] = 0
  found = np.abs(np.asarray(noise.normals_of_words(*words)))
  assert np.all(found <= finite_precision.END * (1 + 1e-6))
  assert found[::2].max() > 9.4 and found[1::2].max() > 8
