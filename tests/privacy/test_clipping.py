"""Laws of the clipping rules, on norms alone: no gradient, no compilation."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.privacy import clipping

CLIP_NORM = 0.3
UNIT = clipping.BIT_SHARE * (1 - clipping.MARGIN) * CLIP_NORM  # of a bit
# Squared norms of the gradients of five patients with two leaves.
SQUARES = {
  'a': jnp.asarray([1e-8, 0.01, 0.04, 9.0, 1e12]),
  'b': jnp.asarray([0.0, 0.01, 0.05, 1.0, 1e-12]),
}
EVERYBODY = jnp.ones(5, bool)


def clipped(rule, squares=SQUARES, keep=EVERYBODY):
  """(clipped norms (p,) of the leaves, the sum of bits, who is kept)."""
  factors, bits, keep = clipping.scales(squares, CLIP_NORM, keep, rule)
  norms = {name: np.sqrt(squares[name]) * np.asarray(factors[name]) for name in squares}
  return norms, float(bits), np.asarray(keep)


@pytest.mark.parametrize('rule', clipping.RULES)
def test_no_rule_leaves_a_patient_longer_than_the_clip_norm(rule):
  norms, _, _ = clipped(rule)
  own_bit = clipping.BIT_SHARE * CLIP_NORM if rule == 'adaptive' else 0.0
  total = np.sqrt(norms['a'] ** 2 + norms['b'] ** 2 + own_bit**2)
  assert np.all(total <= CLIP_NORM)
  assert total[-1] > 0.99 * CLIP_NORM / (np.sqrt(2) if rule == 'per_layer' else 1)


def test_a_gradient_within_the_norm_is_left_as_it_is_unless_it_is_normalised():
  for rule in ('constant', 'per_layer', 'adaptive'):
    norms, _, _ = clipped(rule)
    np.testing.assert_allclose(norms['a'][:2], np.sqrt(SQUARES['a'][:2]), rtol=1e-6)
  norms, _, _ = clipped('normalised')
  assert norms['a'][1] > 1.3 * np.sqrt(SQUARES['a'][1])


def test_a_bit_is_one_within_the_bound_and_minus_one_beyond():
  _, bits, _ = clipped('adaptive')
  assert bits == pytest.approx(UNIT * (2 - 3))
  first = EVERYBODY.at[2:].set(False)
  assert clipped('adaptive', keep=first)[1] == pytest.approx(UNIT * 2)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_who_has_no_finite_gradient_is_not_kept_and_has_no_bit(bad):
  squares = {**SQUARES, 'a': SQUARES['a'].at[0].set(bad)}
  _, bits, keep = clipped('adaptive', squares)
  assert keep.tolist() == [False, True, True, True, True]
  assert bits == pytest.approx(UNIT * (1 - 3))


def test_the_next_norm_stays_within_its_range_of_the_first():
  for share, quantile in ((1.0, 0.0), (-1.0, 1.0)):
    norm = 1.0
    for _ in range(200):
      bit = share * clipping.BIT_SHARE * norm
      norm = float(clipping.next_clip_norm(norm, bit, quantile, 1.0))
    assert norm == pytest.approx(clipping.RANGE**-share, rel=1e-5)


def test_the_adaptive_norm_finds_the_quantile():
  norms, clip_norm = np.random.default_rng(0).lognormal(1.0, 0.5, 4000), 1e-2
  for _ in range(400):
    bit = clipping.BIT_SHARE * clip_norm * np.mean(np.where(norms <= clip_norm, 1, -1))
    clip_norm = float(clipping.next_clip_norm(clip_norm, bit, 0.7, 1.0))
  assert clip_norm == pytest.approx(np.quantile(norms, 0.7), rel=0.05)
