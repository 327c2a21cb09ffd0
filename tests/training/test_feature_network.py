"""Laws of what the feature network learns from: hidden blocks, little noise."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.training import feature_network
from ldm_jax.training.mesh import make_mesh


def test_whole_blocks_are_hidden_and_the_rest_is_nearly_as_it_was():
  x = jnp.ones((9, 16, 16, 1))
  found = np.asarray(
    jax.vmap(feature_network.hide, (0, None))(
      jax.random.split(jax.random.key(0), 40), x
    )
  )
  hidden = found == 0
  share = hidden.mean()
  assert abs(share - feature_network.HIDDEN) < 0.05
  blocks = hidden[:, :8, :, :, 0].reshape(40, 2, 4, 4, 4, 4, 4)
  count = blocks.sum((2, 4, 6))
  assert set(np.unique(count)) == {0, feature_network.BLOCK**3}
  assert abs(found[~hidden].std() - feature_network.NOISE) < 0.005


def test_slices_of_a_volume_are_what_a_flat_network_begins_with():
  volume = np.arange(24.0).reshape(1, 2, 3, 4, 1)
  np.testing.assert_array_equal(feature_network.example(volume, ()), volume)
  found = feature_network.example(volume, (1,))
  np.testing.assert_array_equal(found, volume[:, :, 0])


class Scale(nn.Module):
  """One number: it restores hidden voxels best by a value above one."""

  @nn.compact
  def __call__(self, x):
    return x * self.param('scale', nn.initializers.zeros, ())


def test_it_is_fitted_to_the_volumes_that_it_is_given(tmp_path):
  words = {'steps': 60, 'batch_size': 4, 'learning_rate': 0.05}
  flags = {f'autoencoder.perceptual.{key}': value for key, value in words.items()}
  section = override(defaults(), flags).autoencoder.perceptual
  volumes, read = np.full((6, 4, 8, 1), 0.8, np.float32), set()

  def chosen(rows):
    read.update(np.asarray(rows).tolist())
    return volumes[rows]

  module = Scale()
  run = {
    'folder': tmp_path,
    'log': lambda **event: None,
    'title': 'features',
    'log_every': 50,
    'checkpoint_every': 60,
  }
  found = feature_network.fit(
    module,
    {'scale': jnp.zeros(())},
    chosen,
    section,
    (),
    mesh=make_mesh(1),
    key=jax.random.key(0),
    seed=0,
    num=6,
    run=run,
  )
  assert read == set(range(6))
  assert 0.7 < float(found['scale']) < 1.1
