"""Laws of what all editors share: refusals, and changes that stand out."""

import numpy as np
import pytest

from ldm_jax.synthesis.editors import inversion
from ldm_jax.synthesis.editors.setting import Setting, standing_out

Z = np.random.default_rng(2).normal(size=(3, 2, 4, 4, 3)).astype(np.float32)
OWN = np.array([[0.1, 1], [-0.5, 0], [0.9, 0]], np.float32)
NEW = np.array([[-0.6, 1], [-0.5, 1], [0.9, 0]], np.float32)


@pytest.mark.parametrize(
  'options, words',
  [
    ({'guidance': 0.5}, 'at least 1'),
    ({'guide_from': 'mean'}, "'source' or 'null'"),
    ({'num_steps': 200}, '150'),
    ({'prediction': 'x'}, 'x'),
  ],
  ids=str,
)
def test_impossible_settings_are_refused(world, options, words):
  with pytest.raises(ValueError, match=words):
    Setting(world.apply_denoiser, world.schedule, **{'num_steps': 15, **options})


def test_what_stands_out_of_a_change_is_kept_as_it_is_and_all_else_is_zero():
  rng = np.random.default_rng(0)
  change = rng.normal(0, [0.1, 0.1, 1e-3], (2, 8, 8, 8, 3)).astype(np.float32)
  change[0, 2:4, 2:4, 2:4, 2] += 0.1  # small, but not for its channel
  change[1, 5, 5] += 2
  found = np.asarray(standing_out(change, 3.0))
  expected = np.zeros_like(change)
  expected[0, 2:4, 2:4, 2:4] = change[0, 2:4, 2:4, 2:4]
  expected[1, 5, 5] = change[1, 5, 5]
  np.testing.assert_array_equal(found, expected)
  # Of each example by itself, in any unit.
  other = standing_out(np.stack([change[0], 1e-6 * change[1]]), 3.0)
  np.testing.assert_allclose(other[1], 1e-6 * expected[1], rtol=1e-5)
  np.testing.assert_array_equal(other[0], expected[0])
  nothing = standing_out(np.zeros_like(change), 3.0)
  np.testing.assert_array_equal(nothing, 0)


def test_an_editor_with_a_least_change_leaves_the_rest_bit_for_bit(world):
  def edited(least_change):
    setting = Setting(
      world.apply_denoiser, world.schedule, 6, least_change=least_change
    )
    return np.asarray(inversion.sdedit(setting)(world.params, Z, OWN, NEW))

  free, held = edited(0.0), edited(1.0)
  still = (held == Z).all(-1)
  assert 0.05 < still.mean() < 0.95
  np.testing.assert_allclose(held[~still], free[~still], rtol=1e-5, atol=1e-6)
