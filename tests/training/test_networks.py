"""Config sections become the networks they name, with text where it is used."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA
from ldm_jax.models.denoisers.daum24 import SliceUNet
from ldm_jax.models.denoisers.dit import DiT
from ldm_jax.privacy import gradients
from ldm_jax.training import denoising_loss, networks
from ldm_jax.training.state import flatten

KEY = jax.random.key(0)


def tiny(kind):
  """Config of the smallest denoiser of a kind that still has every part."""
  file = pathlib.Path(__file__).resolve().parents[2] / 'tests' / 'micro.py'
  spec = importlib.util.spec_from_file_location('micro', file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  model = config.diffusion.model
  model.kind, model.remat, model.kernels = kind, True, ((1, 3, 3),) * 2
  model.dit.width, model.dit.num_blocks, model.dit.num_head_channels = 8, 1, 4
  if kind == 'daum24':
    model.channels, model.kernels, model.strides = (8,), ((1, 3, 3),), ()
    model.attention_levels, model.num_heads = (True,), 2
    config.diffusion.conditioner.by = ('attention',)
  return config


def test_the_kind_decides_the_network_and_its_options():
  paper = networks.denoiser(tiny('daum24'), CARDIAC_SCHEMA)
  assert paper.kind == 'daum24' and paper.by == ('attention',)
  SliceUNet(**paper.unet_kwargs)
  config = tiny('dit')
  config.diffusion.model.dtype = 'bfloat16'
  patches = networks.denoiser(config, CARDIAC_SCHEMA)
  made = DiT(**patches.unet_kwargs)
  assert (made.width, made.remat, made.dtype) == (8, True, jnp.bfloat16)


def test_defaults_give_the_network_they_always_gave():
  module = networks.denoiser(defaults(), CARDIAC_SCHEMA)
  assert module.kind == 'unet' and module.text_shape is None
  assert module.unet_kwargs['dtype'] is None


def test_text_makes_room_behind_the_attributes():
  config = tiny('dit')
  config.diffusion.text.files = 'text/{id}.npy'
  config.diffusion.text.num_tokens, config.diffusion.text.width = 3, 5
  module = networks.denoiser(config, CARDIAC_SCHEMA)
  assert module.text_shape == (3, 5)
  shapes = jax.eval_shape(
    lambda: networks.initial_denoiser(module, KEY, (2, 4, 4, 2), 14)
  )
  assert shapes['text_conditioner']['proj']['kernel'].shape == (5, 8)


@pytest.mark.parametrize('kind', ['daum24', 'dit'])
def test_a_private_step_of_recomputed_blocks_keeps_the_bound(kind):
  config = tiny(kind)
  module = networks.denoiser(config, CARDIAC_SCHEMA)
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(0, 0.3, shape).astype(np.float32)
  shapes = jax.eval_shape(
    lambda: networks.initial_denoiser(module, KEY, (2, 4, 4, 2), 14)
  )
  params = flatten(jax.tree.map(lambda leaf: draw(*leaf.shape), shapes))
  losses = denoising_loss.configured_losses(config, module, networks.schedule(config))
  loss = denoising_loss.patient_loss(losses, 1)
  patients = {
    'z': draw(3, 2, 2, 4, 4, 2),
    'attributes': rng.uniform(0, 1, (3, 2, 14)).round().astype(np.float32),
    'present': np.array([[True, True], [True, False], [True, True]]),
  }
  mask, keys = np.array([True, True, False]), jax.random.split(KEY, 3)

  def summed(make, *more):
    one = lambda trained, example, key: loss(trained, {}, example, key)
    run = lambda params: make(one, params, patients, mask, keys, 0.5, *more)
    return jax.jit(run)(params)

  ours = summed(gradients.clipped_sum, 1)
  norm = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(ours)))
  assert 0 < norm <= 2 * 0.5
  if kind == 'daum24':  # one compilation is long enough
    return
  reference = summed(gradients.reference_clipped_sum)
  for name, leaf in reference.items():
    np.testing.assert_allclose(ours[name], leaf, rtol=1e-3, atol=1e-5, err_msg=name)
