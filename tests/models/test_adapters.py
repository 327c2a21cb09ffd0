"""Laws of low-rank adapters: no change at first, a sum at last, no dear gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import partial_eval

from ldm_jax.models import adapters
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.training import state

UNET = {
  'channels': (8, 16),
  'num_res_blocks': 1,
  'kernels': ((1, 3, 3), (3, 3, 3)),
  'strides': ((1, 2, 2),),
  'attention_levels': (False, False),
  'num_head_channels': 8,
  'norm_groups': 4,
}
DIT = {'patch': (1, 2, 2), 'width': 32, 'num_blocks': 1, 'num_head_channels': 16}
NUM_PATIENTS = 13  # no size of a parameter is a multiple of it
KEY = jax.random.key(0)


def is_learned(path):
  return path.endswith((adapters.DOWN, adapters.UP))


def network(kind, **options):
  conditioner = {'width': 8, 'num_heads': 2}
  return ConditionalDenoiser(
    (0, 3), kind=kind, unet_kwargs=options, conditioner_kwargs=conditioner
  )


def arguments(count=2):
  z = jax.random.normal(KEY, (count, 3, 6, 10, 4))
  t = jnp.arange(count)
  return z, t, jnp.zeros((count, 2)), jnp.zeros((count,), bool)


@pytest.fixture
def adapted(drawn):
  """(apply of flat parameters, the network's own, adapters of every kernel)."""

  def build(kind, **options):
    module = network(kind, **options)
    params = state.flatten(drawn(module, *arguments())['params'])
    apply = jax.jit(
      lambda flat: module.apply({'params': state.unflatten(flat)}, *arguments())
    )
    return apply, params, adapters.create(params, KEY, 3, 6.0, ('',))

  return build


@pytest.mark.parametrize(('kind', 'options'), [('unet', UNET), ('dit', DIT)])
def test_adapters_start_as_nothing_and_end_as_a_sum_of_kernels(adapted, kind, options):
  """Bit for bit at the start; then the path beside W is the product with W + s A B."""
  apply, params, added = adapted(kind, **options)
  kernels = {path for path in params if path.endswith('/kernel')}
  assert len(added) == 3 * len(kernels)
  plain = apply(params)
  np.testing.assert_array_equal(apply({**params, **added}), plain)
  rng = np.random.default_rng(1)
  for path in added:
    if is_learned(path):
      added[path] = rng.normal(0, 0.1, added[path].shape).astype(np.float32)
  moved = apply({**params, **added})
  assert float(jnp.abs(moved - plain).max()) > 0.1 * float(jnp.abs(plain).max())
  merged = adapters.merge({**params, **added})
  assert set(merged) == set(params)
  np.testing.assert_allclose(moved, apply(merged), rtol=1e-3, atol=1e-4)
  for path, leaf in merged.items():
    assert np.array_equal(leaf, params[path]) == (path not in kernels), path


def weight_gradients(equations, loss, trained, frozen):
  """How many products of the patients' gradients have a frozen kernel's channels."""
  z, t, attributes, drop = arguments(NUM_PATIENTS)

  def gradients(trained, z, t, attributes, drop):
    one = lambda *example: jax.grad(loss)(trained, frozen, *example)
    return jax.vmap(one)(z, t, attributes, drop)

  closed = jax.make_jaxpr(gradients)(trained, z, t, attributes, drop)
  # What a compiler removes is no cost: drop what no output needs.
  jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
  channels = {
    frozenset(leaf.shape[-2:]) for path, leaf in frozen.items() if '/kernel' in path
  }
  found = 0
  for equation in equations(jaxpr):
    shape = equation.outvars[0].aval.shape
    is_product = equation.primitive.name in ('dot_general', 'conv_general_dilated')
    found += is_product and NUM_PATIENTS in shape and frozenset(shape[-2:]) in channels
  return found


def test_no_patient_has_a_gradient_of_a_frozen_kernel(equations, drawn):
  """Ranks and the grid's sizes are no number of channels, so shapes tell."""
  one_level = {'channels': (8,), 'kernels': ((3, 3, 3),), 'attention_levels': (False,)}
  module = network('unet', **{**UNET, **one_level, 'strides': ()})
  params = state.flatten(drawn(module, *arguments())['params'])

  def loss(form, trained, frozen, z, t, attributes, drop):
    flat = form({**frozen, **trained})
    example = (leaf[None] for leaf in (z, t, attributes, drop))
    return jnp.sum(module.apply({'params': state.unflatten(flat)}, *example) ** 2)

  added = adapters.create(params, KEY, 3, 3.0, ('',))
  trained, frozen = state.partition({**params, **added}, is_learned)
  count = functools.partial(weight_gradients, equations)
  assert count(functools.partial(loss, lambda flat: flat), trained, frozen) == 0
  # The same function with W + s A B formed first has them, or the count sees nothing.
  formed = count(functools.partial(loss, adapters.merge), trained, frozen)
  assert formed > sum(path.endswith('/kernel') for path in params) / 2


def test_targets_choose_layers_by_their_paths():
  params = {
    'a/to_q/kernel': jnp.zeros((4, 6)),
    'a/conv/kernel': jnp.zeros((3, 3, 4, 2)),
  }
  found = adapters.create(params, KEY, 3, 6.0, (r'/to_[qkv]$',))
  shapes = {path: leaf.shape for path, leaf in found.items()}
  assert shapes == {
    'a/to_q/lora_down': (4, 3),
    'a/to_q/lora_up': (3, 6),
    'a/to_q/lora_scale': (),
  }
  assert float(found['a/to_q/lora_scale']) == 2.0
  # No kernel has a higher rank than its smaller side.
  found = adapters.create(params, KEY, 3, 6.0, ('conv',))
  assert found['a/conv/lora_down'].shape == (3, 3, 4, 2)


@pytest.mark.parametrize(
  ('target', 'words'), [('to_x', 'matches no layer.*a/to_q'), ('(', 'no regular')]
)
def test_a_target_that_means_nothing_is_refused(target, words):
  params = {'a/to_q/kernel': jnp.zeros((4, 6))}
  with pytest.raises(ValueError, match=rf'adapt\.lora\.targets.*{words}'):
    adapters.create(params, KEY, 3, 6.0, (target,))
