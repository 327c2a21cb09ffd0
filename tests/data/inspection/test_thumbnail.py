"""Laws of small pictures of a scan."""

import numpy as np

from ldm_jax.data.inspection import thumbnail
from ldm_jax.data.readers.volume import Volume


def test_a_thumbnail_shows_the_middle_slice_in_true_proportions():
  array = np.zeros((5, 40, 20), np.float32)
  array[2, 30:, :] = 1  # anterior
  picture = thumbnail.draw(Volume(array, np.eye(4)), size=80)
  assert picture.shape == (80, 80) and picture.dtype == np.uint8
  assert not picture[:, :20].any() and not picture[:, 60:].any(), 'not 1 : 2'
  assert picture[:15, 25:55].min() == 255 and not picture[25:].any()


def test_planes_are_three_middle_cuts_with_superior_and_anterior_at_the_top():
  array = np.zeros((8, 8, 8), np.float32)
  array[4, 6:, :] = 1  # anterior part of the middle slice
  axial, coronal, sagittal = thumbnail.planes(array, np.ones(3), (0, 1), size=16)
  assert axial[:4].min() == 255 and not axial[4:].any()
  assert not coronal.any(), 'row 4 is not anterior'
  rows, columns = np.nonzero(sagittal)
  assert set(rows) == {6, 7} and columns.min() == 12, 'slice 4 of 8 from below'
  assert thumbnail.planes(array[:1], np.ones(3), (0, 1), size=16).shape == (1, 16, 16)
