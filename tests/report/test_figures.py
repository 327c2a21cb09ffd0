"""Laws of scans as pictures: every pixel is where and what it should be."""

import io

import numpy as np
import pytest
from matplotlib import image

from ldm_jax.report import figures


def decode(data):
  return np.round(255 * image.imread(io.BytesIO(data), format='png')).astype(int)


@pytest.mark.parametrize('shape', [(7, 5), (6, 9, 3), (6, 9, 4)])
def test_png_round_trips_every_pixel(shape):
  pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
  data = figures.encode_png(pixels)
  np.testing.assert_array_equal(decode(data), pixels)
  assert figures.png_size(data) == (shape[1], shape[0])


def test_png_refuses_other_types():
  with pytest.raises(ValueError, match='uint8'):
    figures.encode_png(np.zeros((3, 3)))


def test_montage_puts_volumes_in_columns_and_slices_in_rows():
  volumes = np.zeros((2, 3, 4, 5), np.float32)
  volumes[1, 2] = 1
  pixels = decode(figures.montage(volumes, limits=(0, 1)))
  grey, opacity = pixels[..., 0], pixels[..., -1]
  assert grey.shape == (3 * 4 + 2 * figures.GAP, 2 * 5 + figures.GAP)
  assert (grey[-4:, -5:] == 255).all()
  assert (grey[:4, :5] == 0).all()
  # Gaps show the page, light or dark.
  assert (opacity == 0).sum() == opacity.size - 6 * 4 * 5
  assert (opacity[-4:, -5:] == 255).all() and (opacity[:4, :5] == 255).all()


def test_sprite_holds_every_slice_where_the_viewer_looks_for_it():
  volumes = np.random.default_rng(1).random((3, 4, 6, 5)).astype(np.float32)
  data, shape = figures.sprite(volumes, limits=(0, 1))
  assert shape.pop('thinned') == [1, 1, 1]
  assert shape == {'num': 3, 'depth': 4, 'height': 6, 'width': 5}
  tile = decode(data)[2 * 6 : 3 * 6, 1 * 5 : 2 * 5]
  np.testing.assert_array_equal(tile, np.round(255 * volumes[2, 1]))


def test_sprite_of_large_volumes_stays_within_its_budget():
  _, shape = figures.sprite(np.zeros((4, 40, 64, 64), np.float32), max_pixels=200_000)
  assert shape.pop('thinned') == [2, 1, 1]
  assert np.prod(list(shape.values())) <= 200_000


def test_a_signed_sheet_has_the_colours_of_a_difference():
  volumes = np.array([-0.5, 0, 0.5], np.float32).reshape(1, 3, 1, 1)
  data, _ = figures.sprite(volumes, (0, 0.5), signed=True)
  np.testing.assert_array_equal(
    decode(data)[0], [figures.BLUE, figures.WHITE, figures.RED]
  )


def test_columns_are_one_picture_a_volume_and_large_ones_are_thinned():
  volumes = np.random.default_rng(0).random((3, 4, 64, 48)).astype(np.float32)
  found = figures.columns(volumes, num_slices=2, limits=(0, 1))
  assert [figures.png_size(png) for png in found] == [(48, 128 + figures.GAP)] * 3
  first = decode(found[1])[:64, :, 0]
  np.testing.assert_array_equal(first, np.round(255 * volumes[1, 1]))
  (small, *_) = figures.columns(volumes, max_pixels=2000)
  assert figures.png_size(small) == (12, 3 * 16 + 2 * figures.GAP)


def test_two_dimensional_and_channelled_images_are_taken_too():
  assert figures.as_volumes(np.zeros((3, 8, 8))).shape == (3, 1, 8, 8)
  assert figures.as_volumes(np.zeros((3, 2, 8, 8, 1))).shape == (3, 2, 8, 8)
  with pytest.raises(ValueError, match=r'\(n, d, h, w\)'):
    figures.as_volumes(np.zeros((8, 8)))


def test_no_difference_is_white_and_its_sign_is_its_colour():
  source = np.full((1, 4, 4), 0.5, np.float32)
  difference = np.zeros_like(source)
  difference[0, 0, 0], difference[0, 3, 3] = 0.2, -0.2
  data, scale = figures.counterfactual(source, source + difference, difference)
  tile = decode(data)[-4:, :, :3]
  assert (tile[1, 1] == 255).all()
  assert tile[0, 0, 0] > tile[0, 0, 2]
  assert tile[3, 3, 2] > tile[3, 3, 0]
  assert scale == pytest.approx(0.2, rel=0.05)


def test_constant_and_undefined_volumes_can_be_drawn():
  figures.montage(np.zeros((1, 2, 4, 4)))
  figures.montage(np.full((1, 2, 4, 4), np.nan))
  zero = np.zeros((2, 4, 4))
  figures.counterfactual(zero, zero, zero)


def test_an_overlay_is_grey_where_there_is_no_label_and_has_one_colour_a_class():
  volumes = np.full((2, 1, 3, 4), 0.5, np.float32)
  maps = np.zeros((2, 1, 3, 4), int)
  maps[0, 0, 1, 2], maps[1, 0, 0, 0] = 1, 2
  drawn = figures.overlaid(volumes, maps, limits=(0.0, 1.0))
  first, second = (decode(data)[..., :3] for data in drawn)
  assert first.shape == (3, 4, 3) and (first[0, 0] == 128).all()
  assert (first[..., 0] != first[..., 2]).sum() == 1
  colours = [figures.label_colour(index) for index in (1, 2)]
  assert len(set(colours)) == 2
  for pixel, colour in ((first[1, 2], colours[0]), (second[0, 0], colours[1])):
    full = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    np.testing.assert_allclose(pixel, 128 + figures.OPACITY * (full - 128), atol=1)
