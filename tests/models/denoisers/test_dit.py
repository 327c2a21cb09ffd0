"""The transformer over patches: any size, two and three axes, no mixing of examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.denoisers.dit import DiT, from_patches, positions, to_patches

KEY = jax.random.key(0)
SMALL = {'width': 12, 'num_blocks': 1, 'num_head_channels': 6}


@pytest.mark.parametrize(
  ('size', 'patch'), [((4, 6), (2, 2)), ((3, 5, 7), (1, 2, 3)), ((2, 3, 1), (2, 2, 2))]
)
def test_patches_hold_every_voxel_once_and_come_back(size, patch):
  x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
  tokens, grid = to_patches(x, patch)
  assert tokens.shape == (2, np.prod(grid), np.prod(patch) * 3)
  np.testing.assert_array_equal(from_patches(tokens, patch, grid, size), x)
  assert float(jnp.abs(tokens).sum()) == pytest.approx(float(np.abs(x).sum()), rel=1e-5)


def test_a_token_is_the_patch_at_its_place():
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  tokens, _ = to_patches(x, (2, 2))
  np.testing.assert_array_equal(tokens[0, 1], [2, 3, 6, 7])


@pytest.mark.parametrize(
  ('size', 'options'),
  [
    ((5, 6), {'patch': (2, 2), 'num_class_embeds': 3}),
    ((3, 5, 6), {'patch': (1, 2, 2), 'context_dim': 4}),
  ],
)
def test_the_output_is_zero_before_training_and_keeps_any_size(size, options):
  module = DiT(2, 3, **SMALL, **options)
  x, t = jax.random.normal(KEY, (2, *size, 2)), jnp.array([3, 90])
  context = jnp.ones((2, 3, 4)) if module.context_dim else None
  labels = jnp.array([0, 2]) if module.num_class_embeds else None
  y, _ = jax.jit(module.init_with_output)(KEY, x, t, context, labels)
  np.testing.assert_array_equal(y, jnp.zeros((2, *size, 3)))


@pytest.fixture(scope='module')
def trained():
  """Compiled (variables, x, t, context, None, embedding) -> output, its arguments."""
  module = DiT(2, 2, **SMALL, context_dim=4)
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(0, 0.5, shape).astype(np.float32)
  inputs = draw(3, 3, 5, 6, 2), np.array([3, 50, 90]), draw(3, 2, 4), None, draw(3, 12)
  shapes = jax.eval_shape(module.init, KEY, *inputs)
  variables = jax.tree.map(lambda leaf: 0.4 * draw(*leaf.shape), shapes)
  return jax.jit(module.apply), variables, inputs


def test_permuted_examples_give_permuted_outputs(trained):
  apply, variables, inputs = trained
  y = apply(variables, *inputs)
  other = apply(variables, *jax.tree.map(lambda x: x[::-1], inputs))
  np.testing.assert_allclose(other[::-1], y, atol=1e-4)


def test_every_input_matters_and_one_example_leaves_the_others_alone(trained):
  apply, variables, inputs = trained
  y = apply(variables, *inputs)
  for i in (0, 1, 2, 4):
    moved = list(inputs)
    moved[i] = inputs[i].copy()
    moved[i][1] += 1
    other = apply(variables, *moved)
    np.testing.assert_array_equal(other[::2], y[::2])
    assert jnp.abs(other - y)[1].max() > 1e-3


def test_a_voxel_reaches_every_patch(trained):
  apply, variables, (x, *others) = trained
  moved = x.copy()
  moved[0, 0, 0, 0, 0] += 1.0
  change = jnp.abs(apply(variables, moved, *others) - apply(variables, x, *others))
  assert (change[0].max(-1) > 0).all()


def test_recomputed_blocks_give_the_same_values_and_gradients(trained):
  _, variables, inputs = trained

  def gradient(remat):
    module = DiT(2, 2, **SMALL, context_dim=4, remat=remat)
    total = lambda variables: (module.apply(variables, *inputs) ** 2).sum()
    return jax.jit(jax.value_and_grad(total))(variables)

  plain, again = gradient(False), gradient(True)
  assert jax.tree.structure(plain) == jax.tree.structure(again)
  for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_positions_are_all_different():
  table = np.asarray(positions((3, 4, 5), 16))
  assert table.shape == (60, 16)
  assert len(np.unique(table.round(4), axis=0)) == 60


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'patch': (2, 2)}, 'dit.patch'),
    ({'in_channels': 3}, 'an input of 3 channels, got 2'),
    ({'width': 13}, 'dit.num_head_channels'),
    ({'num_class_embeds': 2}, 'class_labels missing'),
  ],
)
def test_options_that_do_not_fit_are_named(options, message):
  module = DiT(**{'in_channels': 2, **SMALL, **options})
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(module.init, KEY, jnp.ones((1, 2, 4, 4, 2)), jnp.ones(1))
