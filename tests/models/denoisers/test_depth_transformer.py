"""Depth attention: each branch sees its own axis and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.denoisers.depth_transformer import DepthTransformer

KEY = jax.random.key(0)
X = np.random.default_rng(1).normal(size=(2, 3, 4, 5, 8)).astype(np.float32)
CONTEXT = np.random.default_rng(2).normal(size=(2, 2, 6)).astype(np.float32)
BRANCHES = ('slice_attention', 'depth_attention', 'cross_attention', 'linear2')


@pytest.fixture(scope='module')
def block():
  """Compiled (variables, x, context) -> output, and drawn variables."""
  module = DepthTransformer(num_heads=2, head_dim=4)
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(module.init, KEY, X, CONTEXT)
  draw = lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32)
  return jax.jit(module.apply), jax.tree.map(draw, shapes)


def only(variables, branch):
  """The same parameters with every other branch silent."""
  params = dict(variables['params'])
  for name in BRANCHES:
    if name != branch:
      params[name] = jax.tree.map(np.zeros_like, params[name])
  return {'params': params}


def changed(block, branch):
  """(d,h,w): where the output moves when one voxel of the first example does."""
  apply, variables = block
  variables = only(variables, branch)
  moved = X.copy()
  # Not along all channels alike: a norm would take that away.
  moved[0, 1, 2, 3, :3] += 1.0
  y, z = (apply(variables, x, CONTEXT) for x in (X, moved))
  np.testing.assert_array_equal(y[1], z[1])
  return np.abs(np.asarray(y - z))[0].max(-1) > 0


def test_slice_attention_is_blind_across_slices(block):
  seen = changed(block, 'slice_attention')
  assert seen[1].all() and not seen[[0, 2]].any()


def test_depth_attention_is_blind_across_positions_in_plane(block):
  seen = changed(block, 'depth_attention')
  assert seen[:, 2, 3].all() and seen.sum() == 3


@pytest.mark.parametrize('branch', ['cross_attention', 'linear2'])
def test_the_other_branches_see_one_voxel_only(block, branch):
  assert changed(block, branch).sum() == 1


def test_depth_attention_knows_the_order_of_slices(block):
  apply, variables = block
  y = apply(only(variables, 'depth_attention'), X, CONTEXT)
  turned = apply(only(variables, 'depth_attention'), X[:, ::-1], CONTEXT)
  assert np.abs(turned[:, ::-1] - y).max() > 1e-3
  slices = apply(only(variables, 'slice_attention'), X, CONTEXT)
  turned = apply(only(variables, 'slice_attention'), X[:, ::-1], CONTEXT)
  np.testing.assert_allclose(turned[:, ::-1], slices, atol=1e-5)


def test_permuted_examples_give_permuted_outputs(block):
  apply, variables = block
  y = apply(variables, X, CONTEXT)
  other = apply(variables, X[::-1], CONTEXT[::-1])
  np.testing.assert_allclose(other[::-1], y, atol=1e-5)


def test_it_is_the_identity_before_training():
  module = DepthTransformer(num_heads=2, head_dim=4)
  y, _ = jax.jit(module.init_with_output)(KEY, X, CONTEXT)
  np.testing.assert_array_equal(y, X)


def test_images_have_no_depth():
  with pytest.raises(ValueError, match=r"attention='volume'"):
    DepthTransformer(2, 4).init(KEY, jnp.ones((1, 4, 4, 8)))
