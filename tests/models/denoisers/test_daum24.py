"""The paper's preset: sizes, numbers of parameters, process and privacy settings."""

import math
import pathlib

import jax
import jax.numpy as jnp
import pytest

from ldm_jax.config import parsing
from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA
from ldm_jax.models.denoisers.daum24 import SliceUNet
from ldm_jax.training import networks

FILE = pathlib.Path(__file__).resolve().parents[3] / 'configs' / 'daum24.py'
KEY = jax.random.key(0)
# Published in arXiv 2407.16405; the preset meets each within 1 %.
PUBLISHED = {
  'autoencoder': 1.14e6,
  'unet': 27.9e6,
  'attention': 9.1e6,
  'encoder': 8.7e3,
}


@pytest.fixture(scope='module')
def preset():
  return parsing.load(f'{FILE}:full')


def count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def near(found, name):
  return found == pytest.approx(PUBLISHED[name], rel=0.01)


def test_the_autoencoder_has_the_published_size_and_latent(preset):
  module = networks.autoencoder(preset.autoencoder)
  x = jnp.zeros((1, *preset.data.preprocess.shape, 1))
  (x_hat, mean, _), variables = jax.eval_shape(module.init_with_output, KEY, x)
  assert near(count(variables['params']), 'autoencoder')
  assert x_hat.shape == (1, 13, 96, 96, 1) and mean.shape == (1, 13, 24, 24, 1)


def test_the_denoiser_has_the_published_sizes(preset):
  assert len(CARDIAC_SCHEMA) == 14
  module = networks.denoiser(preset, CARDIAC_SCHEMA)
  inputs = jnp.zeros((1, 13, 24, 24, 1)), jnp.zeros(1), jnp.zeros((1, 14))
  y, variables = jax.eval_shape(module.init_with_output, KEY, *inputs)
  params = variables['params']
  assert y.shape == inputs[0].shape
  assert near(count(params['unet']), 'unet')
  assert near(count(params['conditioner']), 'encoder')
  leaves = jax.tree_util.tree_leaves_with_path(params['unet'])
  attention = [leaf for path, leaf in leaves if 'attention' in str(path)]
  assert near(count(attention), 'attention')


def test_process_and_privacy_are_the_published_ones(preset):
  schedule, privacy = preset.diffusion.schedule, preset.adapt.privacy
  assert (schedule.name, schedule.num_timesteps) == ('linear', 150)
  assert (schedule.beta_start, schedule.beta_end) == (1e-4, 7e-2)
  assert preset.diffusion.prediction == 'epsilon'
  assert (preset.sample.solver, preset.sample.steps) == ('ddpm', 150)
  assert (privacy.clip_norm, privacy.delta, privacy.batch_size) == (1.0, 1e-5, 256)
  assert preset.adapt.learning_rate == 1e-5


def test_slices_meet_in_attention_only_and_the_grid_is_kept(drawn):
  module = SliceUNet(channels=(8, 16), norm_groups=4, num_heads=2, num_head_channels=4)
  module = module.clone(num_res_blocks=1, attention_levels=(False, False))
  x, t = jax.random.normal(KEY, (1, 3, 5, 6, 1)), jnp.array([7])
  variables = drawn(module, x, t)
  apply = jax.jit(module.apply)
  y = apply(variables, x, t)
  assert y.shape == x.shape
  # Group norms measure whole volumes, so only a change that keeps their sums is local.
  moved = apply(variables, x[:, ::-1], t)
  assert jnp.abs(moved[:, ::-1] - y).max() < 1e-4


def test_the_output_is_zero_before_training_and_classes_are_refused():
  module = SliceUNet(channels=(8,), norm_groups=4, num_res_blocks=1, num_heads=2)
  module = module.clone(attention_levels=True, strides=(1, 2, 2))
  x = jax.random.normal(KEY, (1, 2, 4, 4, 1))
  y, _ = jax.jit(module.init_with_output)(KEY, x, jnp.array([3]))
  assert not y.any()
  with pytest.raises(ValueError, match="kind='unet'"):
    jax.eval_shape(module.init, KEY, x, jnp.ones(1), None, jnp.ones(1, int))
