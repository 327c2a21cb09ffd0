"""Laws of the discrete Gaussian: its distribution, its grid, its sensitivity."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ldm_jax.privacy import discrete_gaussian, secret_key
from ldm_jax.privacy.releases import clip_rows

KEY = secret_key.new_noise_key(0)


def draws(deviation, count, secret=b'test'):
  stream = discrete_gaussian.SecretStream(secret)
  return np.array(
    [discrete_gaussian.draw(deviation, stream.below) for _ in range(count)]
  )


@pytest.mark.parametrize('deviation', [1, 3])
def test_each_integer_comes_as_often_as_the_distribution_says(deviation):
  found = draws(deviation, 20_000)
  support = np.arange(-3 * deviation, 3 * deviation + 1)
  weights = np.exp(-(np.arange(-200, 201) ** 2) / (2 * deviation**2))
  expected = np.exp(-(support**2) / (2 * deviation**2)) / weights.sum()
  counts = np.array([np.sum(found == value) for value in support])
  rest = found.size - counts.sum()
  expected = found.size * np.append(expected, 1 - expected.sum())
  assert stats.chisquare(np.append(counts, rest), expected).pvalue > 1e-3


def test_on_a_fine_grid_it_is_the_normal_distribution():
  found = draws(2**34, 5_000) / 2**34
  assert stats.kstest(found, 'norm').pvalue > 1e-3


def test_uniform_integers_have_no_bias_and_follow_from_the_secret():
  first, again = (discrete_gaussian.SecretStream(b'a') for _ in range(2))
  found = [first.below(5) for _ in range(20_000)]
  assert found == [again.below(5) for _ in range(20_000)]
  assert stats.chisquare(np.bincount(found, minlength=5)).pvalue > 1e-3
  other = discrete_gaussian.SecretStream(b'b')
  assert found[:50] != [other.below(5) for _ in range(50)]
  assert 'secret' in repr(first)
  assert first.below(1) == 0


@given(
  sigma=st.floats(0.05, 1e4), clip_norm=st.sampled_from([1e-9, 0.3, 1.0, math.pi, 1e6])
)
def test_the_noise_is_never_less_than_asked_and_the_grid_is_public(sigma, clip_norm):
  spacing, deviation = discrete_gaussian.grid(sigma, clip_norm)
  wanted = Fraction(sigma) * Fraction(clip_norm)
  assert math.frexp(spacing)[0] == 0.5, 'the spacing is no power of two'
  assert wanted <= deviation * Fraction(spacing) <= wanted * (1 + Fraction(1, 2**34))
  assert 2**34 <= deviation <= 2**35


@settings(max_examples=200, deadline=None)
@given(
  seed=st.integers(0, 2**16),
  size=st.sampled_from([1, 2, 7, 300]),
  clip_norm=st.sampled_from([1e-6, 0.1, 1.0, 1e3]),
  sigma=st.sampled_from([0.05, 1.0, 77.7]),
)
def test_a_patient_moves_the_rounded_sum_by_at_most_the_clip_norm_exactly(
  seed, size, clip_norm, sigma
):
  """In integers, without any rounding of the test itself."""
  row = np.random.default_rng(seed).normal(size=(1, size)) * 1e9
  spacing, _ = discrete_gaussian.grid(sigma, clip_norm)
  whole = discrete_gaussian.on_grid(clip_rows(row, clip_norm), spacing)
  squares = sum(int(value) ** 2 for value in whole[0])
  limit = Fraction(clip_norm) / Fraction(spacing)
  assert squares <= limit**2
  assert squares >= (limit - size) ** 2  # and hardly less


def test_the_same_key_repeats_the_noise_and_another_key_does_not():
  rows = np.zeros((2, 5))
  first, again, other = (
    discrete_gaussian.noisy_sum(rows, 1.0, 2.0, key)
    for key in (KEY, KEY, secret_key.new_noise_key(1))
  )
  np.testing.assert_array_equal(first, again)
  assert np.all(first != other)
  assert len(set(first)) == 5


def test_sums_are_exact_where_64_bits_do_not_suffice():
  found = discrete_gaussian.noisy_sum(np.full((8, 2), 0.5), 10.0, 1e-9, KEY)
  np.testing.assert_allclose(found, 4.0, atol=1e-6)


def test_more_numbers_than_the_term_of_delta_covers_are_refused():
  with pytest.raises(ValueError, match='at most 1048576'):
    discrete_gaussian.noisy_sum(np.zeros((0, 2**20 + 1)), 1.0, 1.0, KEY)
