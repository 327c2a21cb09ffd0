"""Which parameters no gradient reaches, found without any data."""

import jax
import jax.numpy as jnp
import pytest

from ldm_jax.diffusion import schedules
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.training import denoising_loss, state, unreachable

LATENT = (2, 4, 4, 2)
DIT = {'patch': (1, 2, 2), 'width': 16, 'num_blocks': 1, 'num_head_channels': 8}
SCHEDULE = schedules.schedule('linear', 20, beta_start=1e-4, beta_end=7e-2)


def found(num_attributes, drop_probability):
  module = ConditionalDenoiser(
    (0,) * num_attributes,
    in_channels=2,
    out_channels=2,
    kind='dit',
    unet_kwargs=DIT,
    conditioner_kwargs={'width': 8, 'num_heads': 2},
  )
  losses = denoising_loss.denoising_losses(module, SCHEDULE, 'v', drop_probability)
  shapes = jax.eval_shape(
    module.init,
    jax.random.key(0),
    jnp.zeros((1, *LATENT)),
    jnp.zeros((1,), jnp.int32),
    jnp.zeros((1, num_attributes)),
    jnp.zeros((1,), bool),
  )
  params = state.flatten(shapes['params'])
  frozen = {path: params.pop(path) for path in list(params) if 'patch_embed' in path}
  return set(
    unreachable.idle(losses, params, frozen, LATENT, num_attributes, num_attributes)
  ), set(params)


def test_one_token_of_context_leaves_query_and_key_idle_and_two_do_not():
  """A key's bias is idle in any case: it moves all scores of a query alike."""
  biases = {f'dit/blocks_0/{a}/to_k/bias' for a in ('attention', 'cross_attention')}
  one, params = found(1, 0.0)
  projections = {
    path
    for path in params
    if path.startswith(('conditioner/attention/', 'dit/blocks_0/cross_attention/'))
    and ('to_q' in path or 'to_k' in path)
  }
  # Without dropping, the token of a dropped condition is never used.
  assert one == projections | biases | {'conditioner/null'}
  two, _ = found(2, 0.5)
  assert two == biases


def test_a_method_that_would_move_nothing_is_refused():
  losses = lambda params, z, conditions, keys: 0.0 * params['a'] + jnp.zeros(len(z))
  with pytest.raises(ValueError, match=r'No gradient reaches.*adapt\.method'):
    unreachable.idle(losses, {'a': jnp.zeros(())}, {}, LATENT, 1, 1)
