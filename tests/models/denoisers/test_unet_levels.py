"""The parts of a UNet: blocks computed again backwards give what stored ones give."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.attention import SpatialTransformer
from ldm_jax.models.denoisers.depth_transformer import DepthTransformer
from ldm_jax.models.denoisers.unet_levels import Level, Middle
from ldm_jax.models.layers import ResidualBlock

KEY = jax.random.key(0)
RESIDUAL = functools.partial(ResidualBlock, 8, (1, 3, 3), 4)
ATTENTIONS = {
  'volume': functools.partial(SpatialTransformer, 2, 4, 4),
  'depth': functools.partial(DepthTransformer, 2, 4),
  'none': None,
}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 2, 3, 4, 8)).astype(np.float32)
EMBEDDING = RNG.normal(size=(2, 5)).astype(np.float32)
CONTEXT = (
  RNG.normal(size=(2, 3, 6)).astype(np.float32),
  np.array([[True, True, False], [True] * 3]),
)


def value_and_gradient(make, variables, remat):
  module = make(remat)

  def total(params, x):
    y = module.apply({'params': params}, x, EMBEDDING, CONTEXT)
    return sum((leaf**2).sum() for leaf in jax.tree.leaves(y))

  return jax.jit(jax.value_and_grad(total, (0, 1)))(variables['params'], X)


@pytest.mark.parametrize('attention', ATTENTIONS)
def test_recomputed_blocks_give_the_same_values_and_gradients(attention, drawn):
  def make(remat):
    return Level(1, RESIDUAL, ATTENTIONS[attention], None, '', remat)

  variables = drawn(make(True), X, EMBEDDING, CONTEXT)
  assert 'resnets_0' in variables['params']
  plain, again = (value_and_gradient(make, variables, r) for r in (False, True))
  assert jax.tree.structure(plain) == jax.tree.structure(again)
  for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_recomputing_keeps_less_between_the_passes(drawn):
  def kept(remat):
    module = Middle(RESIDUAL, ATTENTIONS['depth'], remat)
    variables = jax.eval_shape(module.init, KEY, X, EMBEDDING, CONTEXT)

    def residuals(variables):
      y, backward = jax.vjp(lambda v: module.apply(v, X, EMBEDDING, CONTEXT), variables)
      return y, backward

    _, backward = jax.eval_shape(residuals, variables)
    return sum(leaf.size for leaf in jax.tree.leaves(backward))

  assert kept(True) < kept(False) / 2


def test_names_do_not_depend_on_recomputing():
  def names(remat):
    module = Middle(RESIDUAL, ATTENTIONS['volume'], remat)
    shapes = jax.eval_shape(module.init, KEY, X, EMBEDDING, jnp.ones((2, 3, 6)))
    return jax.tree.map(jnp.shape, shapes)

  assert names(True) == names(False)
