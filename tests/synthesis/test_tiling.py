"""Laws of decoding in tiles."""

import numpy as np
import pytest

from ldm_jax.synthesis.tiling import tiled


def enlarge(z):
  return np.repeat(np.repeat(z, 2, 2), 4, 3) * 3 + 1


def latents(*space):
  return np.random.default_rng(0).normal(size=(2, *space, 3)).astype(np.float32)


@pytest.mark.parametrize('tile', [(None, 5, 4), (3, 7, 100), (2, 2, 2)])
@pytest.mark.parametrize('overlap', [0, 1])
def test_a_local_decoder_gives_the_whole_volume_tile_by_tile(tile, overlap):
  z = latents(5, 9, 11)
  decode = tiled(enlarge, tile, overlap)
  np.testing.assert_allclose(decode(z), enlarge(z), rtol=1e-5, atol=1e-5)


def test_every_tile_has_one_shape_and_none_is_larger():
  seen = set()

  def decode(z):
    seen.add(z.shape)
    return enlarge(z)

  tiled(decode, (None, 4, 5), 2)(latents(3, 9, 11))
  assert seen == {(2, 3, 4, 5, 3)}


def test_where_tiles_disagree_the_result_runs_smoothly_from_one_to_the_other():
  calls = iter(range(100))
  x = tiled(lambda z: np.full_like(z, next(calls)), (8,), 4)(latents(12))
  profile = x[0, :, 0]
  assert profile[0] == 0 and profile[-1] == 1
  assert (np.diff(profile) >= 0).all() and np.diff(profile).max() < 0.34


@pytest.mark.parametrize(
  ('tile', 'overlap', 'says'),
  [
    ((2, 2, 2), 2, 'longer than the overlap'),
    ((4, 4), 1, 'one number'),
    ((4,) * 3, -1, '0 or'),
  ],
)
def test_impossible_tiles_are_refused(tile, overlap, says):
  with pytest.raises(ValueError, match=says):
    tiled(enlarge, tile, overlap)(latents(5, 9, 11))


def test_a_decoder_without_whole_factors_is_refused():
  with pytest.raises(ValueError, match='whole factor'):
    tiled(lambda z: z[:, :-1], (4,), 1)(latents(9))
