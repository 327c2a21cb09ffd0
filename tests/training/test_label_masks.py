"""Laws of label maps as columns of a condition."""

import numpy as np

from ldm_jax.config.parsing import override
from ldm_jax.training import denoising_loss, label_masks, networks
from tests import micro

CONFIG = override(
  micro.get_config(), {'diffusion.conditioner.by': ('embedding', 'mask')}
)


class Maps:
  """As much of a split as its label maps."""

  name = 'public'

  def __init__(self, maps):
    self.maps = maps

  def __len__(self):
    return len(self.maps)

  def labels(self, rows):
    return self.maps[rows]


def test_the_columns_are_on_the_grid_of_the_latent_and_those_of_each_scan():
  maps = np.random.default_rng(0).integers(0, 4, (19, *micro.SHAPE))
  found = label_masks.of_split(CONFIG, Maps(maps))
  grid = networks.latent_shape(CONFIG)[:-1]
  assert grid == (5, 8, 8) and found.shape == (19, 5 * 8 * 8 * 4)
  np.testing.assert_array_equal(found[7:9], label_masks.columns(CONFIG, maps[7:9]))
  # The share of class 2 in a block of four voxels.
  shares = found.reshape(19, *grid, 4)
  np.testing.assert_allclose(
    shares[3, 1, 2, 5, 2], (maps[3, 1, 4:6, 10:12] == 2).mean()
  )


def test_some_examples_are_trained_without_their_map_and_with_their_attributes():
  import jax

  columns = np.ones((400, 2 + 3), np.float32)
  keys = jax.random.split(jax.random.key(0), 400)
  hidden = np.isnan(denoising_loss.hide(columns, 2, 0.25, keys))
  assert not hidden[:, :2].any() and abs(hidden[:, 2].mean() - 0.25) < 0.07
  assert (hidden[:, 2:].all(1) == hidden[:, 2:].any(1)).all()


def test_without_a_mask_no_map_is_read():
  assert networks.mask_values(micro.get_config()) == ()
  assert networks.mask_values(CONFIG) == (0, 1, 2, 3)
