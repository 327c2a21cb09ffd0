"""Laws of outlines: read, measured and filled."""

import numpy as np
import pytest

from ldm_jax.data.layouts.shared import contours


@pytest.mark.parametrize(
  'text', ['', '1 2\n3 4', '1 2 3\n' * 4, 'a b\n' * 3, '1 2\n3\n4 5']
)
def test_a_broken_outline_is_a_verdict(tmp_path, text):
  path = tmp_path / 'a.txt'
  path.write_text(text)
  with pytest.raises(ValueError, match=r'outline|points of shape'):
    contours.read_points(path)


def test_the_area_of_a_filled_outline_is_that_of_the_outline():
  angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
  points = 60 + 40.3 * np.stack([np.cos(angle), np.sin(angle)], -1)
  filled = contours.fill(points, (120, 130))
  assert filled.shape == (120, 130)
  assert filled.sum() == pytest.approx(contours.area(points), rel=5e-3)


def test_the_number_of_a_file_is_the_last_in_its_name():
  assert contours.number_of('IM-0003-0048.dcm') == 48
  assert contours.number_of('scan.dcm') is None
