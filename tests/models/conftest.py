"""Reference networks under our names, and parameters without a compilation."""

import json

import jax
import numpy as np
import pytest

from ldm_jax.models import convert
from ldm_jax.models.interop import reference_monai


@pytest.fixture(autouse=True)
def as_users_have_it(users_convolutions):
  """All networks are tested with the convolutions of users."""


@pytest.fixture
def reference(golden):
  """Loads (config, parameters, inputs, outputs) of a reference network by its name."""

  def load(name):
    config = json.loads((golden / f'{name}.json').read_text())['config']
    arrays = np.load(golden / f'{name}.npz')
    found = {'w': {}, 'in': {}, 'out': {}}
    for key in arrays.files:
      group, key = key.split('/')
      value = arrays[f'{group}/{key}']
      channels_last = group != 'w' and value.ndim == 5
      found[group][key] = np.moveaxis(value, 1, -1) if channels_last else value
    is_unet = 'latent_channels' not in config
    build = reference_monai.unet if is_unet else reference_monai.autoencoder
    params = convert.to_ours(build(config), found['w'])
    return config, params, found['in'], found['out']

  return load


@pytest.fixture
def drawn():
  """Variables of a module drawn by NumPy: no compilation, no zero anywhere."""

  def draw(module, *inputs, scale=0.2, **kwargs):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs, **kwargs)
    return jax.tree.map(
      lambda leaf: rng.normal(0, scale, leaf.shape).astype(leaf.dtype), shapes
    )

  return draw


@pytest.fixture
def equations():
  """jaxpr -> its equations, those of inner programs included."""

  def walk(jaxpr):
    for equation in jaxpr.eqns:
      yield equation
      for value in equation.params.values():
        for inner in jax.tree.leaves(value, is_leaf=lambda v: hasattr(v, 'eqns')):
          inner = getattr(inner, 'jaxpr', inner)
          if hasattr(inner, 'eqns'):
            yield from walk(inner)

  return walk


@pytest.fixture
def torch():
  return pytest.importorskip('torch', reason='comes with the extra "interop"')


@pytest.fixture
def drawn_weights(torch):
  """Fills a torch network with random numbers, no zeros; returns {name: array}."""

  def draw(network):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
      for value in network.parameters():
        value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    network.eval()
    return {name: value.numpy() for name, value in network.state_dict().items()}

  return draw
