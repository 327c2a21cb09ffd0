"""Every kind of denoiser steered in every way: the same protocol, the same laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.denoisers.conditional import ConditionalDenoiser, as_channels

KEY = jax.random.key(0)
UNET = {
  'channels': (8, 16),
  'norm_groups': 4,
  'num_head_channels': 8,
  'kernels': (1, 3, 3),
  'strides': (1, 2, 2),
}
SLICES = {
  **UNET,
  'attention_levels': (False, True),
  'num_heads': 2,
  'num_res_blocks': 1,
}
DIT = {'width': 12, 'num_blocks': 1, 'num_head_channels': 6}
RNG = np.random.default_rng(0)
Z_T = RNG.normal(size=(3, 2, 5, 6, 2)).astype(np.float32)
T = np.array([1, 20, 140])
ATTRIBUTES = np.array(
  [[0.5, 1, -0.3], [np.nan, 0, 0.2], [-1, np.nan, np.nan]], np.float32
)
KEEP = np.zeros(3, bool)
CASES = {
  'tokens alone': ('unet', UNET, ('attention',)),
  'embedding alone': ('unet', UNET, ('embedding',)),
  'channels alone': ('unet', UNET, ('channels',)),
  'depth attention and all ways': (
    'unet',
    {**UNET, 'attention': 'depth', 'attention_levels': True},
    ('attention', 'embedding', 'channels'),
  ),
  'the paper': ('daum24', SLICES, ('attention',)),
  'patches': ('dit', DIT, ('attention', 'embedding')),
}


def make(kind, options, by, **more):
  return ConditionalDenoiser(
    (0, 2, 0), 2, 2, {'width': 8, 'num_heads': 2}, options, kind, by, **more
  )


def drawn(module, *inputs):
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(module.init, KEY, *inputs)
  return jax.tree.map(
    lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes
  )


@pytest.mark.parametrize('case', CASES)
def test_conditions_steer_unless_dropped_and_examples_never_meet(case):
  module = make(*CASES[case])
  variables = drawn(module, Z_T, T, ATTRIBUTES, KEEP)
  apply = jax.jit(module.apply)
  y = apply(variables, Z_T, T, ATTRIBUTES, KEEP)
  assert y.shape == Z_T.shape and jnp.isfinite(y).all()
  moved = ATTRIBUTES + np.array([[0.5], [0.0], [0.0]], np.float32)
  other = apply(variables, Z_T, T, moved, KEEP)
  assert jnp.abs(other - y)[0].max() > 1e-4
  np.testing.assert_array_equal(other[1:], y[1:])
  first = np.array([True, False, False])
  one, two = (apply(variables, Z_T, T, a, first) for a in (ATTRIBUTES, moved))
  np.testing.assert_array_equal(one, two)
  assert jnp.abs(one - y)[0].max() > 1e-4
  turned = apply(variables, Z_T[::-1], T[::-1], ATTRIBUTES[::-1], KEEP)
  np.testing.assert_allclose(turned[::-1], y, atol=1e-4)


def test_channels_are_scaled_to_one_and_tell_the_unknown():
  channels = as_channels(ATTRIBUTES, (0, 3, 0), np.array([False, False, True]))
  np.testing.assert_allclose(
    channels,
    [[0.75, 0.5, 0.35, 1, 1, 1], [0, 0, 0.6, 0, 1, 1], [0] * 6],
    atol=1e-6,
  )


def test_gradients_stay_finite_where_attributes_are_missing():
  total = lambda attributes: as_channels(attributes, (0, 2, 0)).sum()
  gradient = jax.grad(total)(ATTRIBUTES)
  np.testing.assert_array_equal(gradient, ~np.isnan(ATTRIBUTES) * [0.5, 1.0, 0.5])


@pytest.mark.parametrize('case', ['the paper', 'patches'])
def test_half_precision_is_close_and_parameters_and_norms_stay_float32(case, equations):
  kind, options, by = CASES[case]
  module = make(kind, {**options, 'dtype': jnp.bfloat16}, by)
  variables = drawn(module, Z_T, T, ATTRIBUTES, KEEP)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype('float32')}
  apply = lambda variables: module.apply(variables, Z_T, T, ATTRIBUTES, KEEP)
  y = jax.jit(apply)(variables).astype(jnp.float32)
  whole = make(*CASES[case])
  exact = jax.jit(whole.apply)(variables, Z_T, T, ATTRIBUTES, KEEP)
  assert jnp.linalg.norm(y - exact) < 0.05 * jnp.linalg.norm(exact)
  found = {}
  for equation in equations(jax.make_jaxpr(apply)(variables).jaxpr):
    types = {str(v.aval.dtype) for v in equation.outvars}
    found.setdefault(equation.primitive.name, set()).update(types)
  # Roots are taken by norms only, exponentials by softmax only.
  assert found['rsqrt'] == found['exp'] == {'float32'}
  assert 'bfloat16' in found['dot_general']


def test_text_steers_and_its_padding_does_not():
  module = make('dit', DIT, ('attention', 'embedding'), text_shape=(4, 5))
  text = RNG.normal(size=(3, 4, 5)).astype(np.float32)
  there = np.array([[True] * 4, [True, True, False, False], [False] * 4])

  def conditions(text, there):
    text = np.where(there[..., None], text, np.nan)
    return np.concatenate([ATTRIBUTES, text.reshape(3, -1)], 1)

  condition = conditions(text, there)
  variables = drawn(module, Z_T, T, condition, KEEP)
  apply = jax.jit(module.apply)
  y = apply(variables, Z_T, T, condition, KEEP)
  assert jnp.isfinite(y).all()
  moved = apply(variables, Z_T, T, conditions(text + 0.5, there), KEEP)
  change = jnp.abs(moved - y).max((1, 2, 3, 4))
  assert (change[:2] > 1e-4).all() and change[2] == 0, 'the third has no text'
  without = apply(variables, Z_T, T, ATTRIBUTES, KEEP)
  np.testing.assert_allclose(without[2], y[2], atol=1e-5)
  assert jnp.abs(without - y)[:2].max() > 1e-4
  dropped = apply(variables, Z_T, T, condition, ~KEEP)
  other = conditions(text + 0.5, there[::-1])
  np.testing.assert_array_equal(apply(variables, Z_T, T, other, ~KEEP), dropped)


@pytest.mark.parametrize(
  ('options', 'condition', 'message'),
  [
    ({'kind': 'vit'}, ATTRIBUTES, 'diffusion.model.kind'),
    ({'by': ('tokens',)}, ATTRIBUTES, 'diffusion.conditioner.by'),
    (
      {'by': ('channels',), 'text_shape': (1, 2)},
      ATTRIBUTES,
      'cannot be given as channels',
    ),
    (
      {'text_shape': (2, 2)},
      ATTRIBUTES[:, :1],
      r'\(b, 3\) or, with text \(2, 2\), \(b, 7\)',
    ),
    ({}, ATTRIBUTES[:, :2], r'expected conditions \(b, 3\), got \(3, 2\)'),
  ],
)
def test_conditions_that_do_not_fit_are_named(options, condition, message):
  module = ConditionalDenoiser((0, 2, 0), 2, 2, unet_kwargs=UNET, **options)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(module.init, KEY, Z_T, T, condition, KEEP)
