"""Laws of the transformations of public volumes."""

import numpy as np
import pytest

from ldm_jax.config.checks import check
from ldm_jax.config.parsing import override
from ldm_jax.data.preprocessing.augment import augment
from tests import micro


def blob(centre=(7, 16, 16), radius=4.0):
  grid = np.indices((15, 33, 33)).astype(np.float32)
  squared = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True))
  return np.clip(radius + 0.5 - np.sqrt(squared), 0, 1)[None, ..., None]


def test_no_motion_and_no_contrast_leave_the_volume_alone():
  x = np.random.default_rng(0).random((2, 4, 6, 6, 1), np.float32)
  np.testing.assert_allclose(augment(x, np.random.default_rng(1)), x, atol=1e-6)


def test_one_seed_gives_one_result_and_every_volume_its_own_draw():
  x = np.repeat(blob((7, 12, 16)), 2, 0)
  options = {'shift': (0, 3, 3), 'rotation_deg': (20, 0, 0), 'gamma': 0.2}
  first = augment(x, np.random.default_rng(3), **options)
  np.testing.assert_array_equal(first, augment(x, np.random.default_rng(3), **options))
  assert np.abs(first[0] - first[1]).max() > 0.1


@pytest.mark.parametrize('rotation_deg', [(40, 0, 0), (0, 30, 30), (0, 0, 0)])
def test_motion_keeps_the_volume_of_an_object(rotation_deg):
  x = blob()
  moved = augment(
    x, np.random.default_rng(5), shift=(0, 4, 4), rotation_deg=rotation_deg
  )
  np.testing.assert_allclose(moved.sum(), x.sum(), rtol=0.01)


def test_rotation_about_the_first_axis_leaves_slices_in_their_place():
  x = blob((7, 10, 16), 3.0)
  moved = augment(x, np.random.default_rng(2), rotation_deg=(90, 0, 0))
  np.testing.assert_allclose(moved.sum((2, 3)), x.sum((2, 3)), rtol=0.02, atol=0.05)
  assert np.abs(moved - x).max() > 0.5


def test_contrast_keeps_order_black_and_white():
  x = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 4, 4, 4, 1)
  y = augment(x, np.random.default_rng(2), gamma=0.5)
  assert (np.diff(y.ravel()) > 0).all() and y.min() == 0 and y.max() == 1
  assert np.abs(y - x).max() > 0.02


@pytest.mark.parametrize(
  ('key', 'value'),
  [('shift', (1, 2)), ('rotation_deg', (-1, 0, 0)), ('copies', -1), ('gamma', -0.1)],
)
def test_an_impossible_section_names_its_key(key, value):
  config = override(micro.get_config(), {f'augment.{key}': value})
  with pytest.raises(ValueError, match=f'augment.{key}'):
    check(config)


def test_a_label_map_moves_with_its_scan_and_stays_one_hot():
  x = blob((7, 12, 16))
  labels = (x > 0.5) == np.array([False, True])
  both = np.concatenate([x, labels], -1).astype(np.float32)
  options = {'shift': (0, 4, 4), 'rotation_deg': (30, 0, 0), 'gamma': 0.1}
  moved = augment(both, np.random.default_rng(4), **options)
  alone = augment(x, np.random.default_rng(4), **options)
  assert np.array_equal(moved[..., :1], alone)
  assert (moved[..., 1:].sum(-1) == 1).all()
  inside = moved[..., 2] > 0
  assert (inside == (alone[..., 0] > 0.5)).mean() > 0.995 and inside.sum() > 100
