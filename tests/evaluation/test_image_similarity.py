"""Laws of PSNR, SSIM and multi-scale SSIM."""

import json

import numpy as np
import pytest

from ldm_jax.evaluation import image_similarity


@pytest.mark.parametrize('dimensions', ['2d', '3d'])
@pytest.mark.parametrize('window', ['gaussian', 'uniform'])
def test_similarity_matches_the_reference_implementation(golden, dimensions, window):
  data = np.load(golden / 'metrics.npz')
  expected = json.loads((golden / 'metrics.json').read_text())
  x, y = (data[f'msssim/{dimensions}/{k}'][0] for k in ('preds', 'target'))
  single = image_similarity.ssim(x, y, window=window)[0]
  several = image_similarity.ms_ssim(x, y, weights=(0.5, 0.5), window=window)
  suffix = f'{dimensions}_{window}'
  assert single == pytest.approx(expected[f'ssim_{suffix}'], abs=1e-4)
  assert several['values'][0] == pytest.approx(expected[f'msssim_{suffix}'], abs=1e-4)
  assert several['scales'] == 2


def test_psnr_of_known_noise_follows_its_definition():
  x = np.random.default_rng(0).random((2, 4, 8, 8))
  np.testing.assert_allclose(image_similarity.psnr(x, x + 0.1), 20.0)
  assert np.isinf(image_similarity.psnr(x, x)).all()


@pytest.mark.parametrize('shape', [(2, 40, 40), (2, 5, 24, 24), (2, 13, 48, 32)])
def test_similarity_of_equal_images_is_one_on_any_grid(shape):
  x = np.random.default_rng(2).random(shape)
  np.testing.assert_allclose(image_similarity.ssim(x, x), 1.0)
  np.testing.assert_allclose(image_similarity.ms_ssim(x, x)['values'], 1.0)


def test_similarity_is_symmetric_and_falls_with_noise():
  rng = np.random.default_rng(3)
  x = rng.random((1, 8, 32, 32))
  noise = rng.normal(size=x.shape)
  values = [
    image_similarity.ms_ssim(x, x + s * noise)['values'][0] for s in (0.01, 0.1, 1)
  ]
  assert values[0] > values[1] > values[2]
  backwards = image_similarity.ms_ssim(x + 0.1 * noise, x)['values'][0]
  assert backwards == pytest.approx(values[1])


def test_thin_stacks_keep_their_slices_and_lose_only_in_plane_resolution():
  result = image_similarity.ms_ssim(np.ones((1, 5, 96, 96)), np.ones((1, 5, 96, 96)))
  assert result['scales_per_axis'] == (1, 4, 4)
  assert result['scales'] == 4
  assert result['window'] == (5, 11, 11)


def test_full_size_grids_use_all_five_scales():
  result = image_similarity.ms_ssim(np.ones((1, 176, 176)), np.ones((1, 176, 176)))
  assert result['scales'] == 5


def test_diversity_of_copies_is_one_and_of_different_images_less():
  rng = np.random.default_rng(4)
  one = rng.random((1, 4, 16, 16))
  copies = image_similarity.diversity(np.repeat(one, 5, axis=0))
  assert copies['value'] == pytest.approx(1)
  assert copies['num_pairs'] == 10
  different = image_similarity.diversity(rng.random((5, 4, 16, 16)))
  assert different['high'] < 0.5
  assert different['low'] <= different['value'] <= different['high']


def test_diversity_leaves_out_pairs_of_one_patient():
  x = np.random.default_rng(5).random((6, 12, 12))
  result = image_similarity.diversity(x, groups=['a', 'a', 'b', 'b', 'c', 'c'])
  assert result['num_pairs'] == 12
  with pytest.raises(ValueError, match='at least two different'):
    image_similarity.diversity(x, groups=['a'] * 6)


def test_unequal_grids_are_refused():
  with pytest.raises(ValueError, match='two equal shapes'):
    image_similarity.ssim(np.ones((1, 8, 8)), np.ones((1, 8, 9)))
