"""Laws of the word for a cohort: it is heard where it is said, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.conditions import new_token
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.training.state import flatten, unflatten

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
Z_T = RNG.normal(size=(3, 2, 4, 4, 2)).astype(np.float32)
T = np.array([1, 20, 140])
ATTRIBUTES = np.array([[0.5, 1], [np.nan, 0], [-1, np.nan]], np.float32)
SOME = np.array([False, True, False])
NOWHERE = np.zeros(3, bool)
SLICES = {
  'channels': (4, 4),
  'norm_groups': 2,
  'num_head_channels': 4,
  'num_heads': 1,
  'num_res_blocks': 1,
  'attention_levels': (False, True),
}
DIT = {'width': 12, 'num_blocks': 1, 'num_head_channels': 6}
UNET = {'channels': (4,), 'norm_groups': 2, 'num_head_channels': 4}
CASES = {
  'both ways': ('dit', DIT, ('attention', 'embedding')),
  'embedding alone': ('unet', {**UNET, 'middle_attention': False}, ('embedding',)),
  'tokens alone': ('dit', DIT, ('attention',)),
}


def make(kind, options, by, **more):
  conditioner = {'width': 8, 'num_heads': 2}
  return ConditionalDenoiser((0, 2), 2, 2, conditioner, options, kind, by, **more)


def with_word(params, num=2):
  """Nested parameters with a word that is drawn like all others, no zero anywhere."""
  flat = flatten(params)
  word = new_token.create(flat, KEY, num)
  drawn = {p: RNG.normal(0, 0.5, leaf.shape) for p, leaf in word.items()}
  return unflatten({**flat, **{p: v.astype(np.float32) for p, v in drawn.items()}})


@pytest.mark.parametrize('case', CASES)
def test_the_word_is_heard_unless_untold_or_dropped(case, drawn):
  module = make(*CASES[case])
  params = drawn(module, Z_T, T, ATTRIBUTES, NOWHERE)['params']
  assert 'concept' not in params, 'a network is made without a word'
  told = with_word(params)

  @jax.jit
  def apply(params, drop, untold):
    return module.apply({'params': params}, Z_T, T, ATTRIBUTES, drop, untold)

  without, heard = (apply(p, NOWHERE, NOWHERE) for p in (params, told))
  assert (jnp.abs(heard - without).max((1, 2, 3, 4)) > 1e-4).all()
  some = apply(told, NOWHERE, SOME)
  np.testing.assert_allclose(some[1], without[1], atol=1e-6)
  np.testing.assert_array_equal(some[::2], heard[::2])
  dropped = apply(told, SOME, NOWHERE)
  np.testing.assert_allclose(dropped[1], apply(params, SOME, NOWHERE)[1], atol=1e-6)


def test_a_network_without_a_word_is_what_it_was_bit_for_bit(drawn):
  module = make(*CASES['both ways'], text_shape=(2, 3))
  text = RNG.normal(size=(3, 6)).astype(np.float32)
  conditions = np.concatenate([ATTRIBUTES, text], 1)
  variables = drawn(module, Z_T, T, conditions, NOWHERE)
  network = module.bind(variables).dit

  @jax.jit
  def by_hand(variables):
    context, embedding = module.apply(variables, conditions, SOME, method='describe')
    inner = {'params': variables['params']['dit']}
    return network.clone(parent=None).apply(
      inner, Z_T, T, context=context, embedding=embedding
    )

  found = jax.jit(module.apply)(variables, Z_T, T, conditions, SOME, SOME)
  np.testing.assert_array_equal(found, by_hand(variables))


def shapes(case):
  made = jax.eval_shape(make(*case).init, KEY, Z_T, T, ATTRIBUTES, NOWHERE)
  return flatten(made['params'])


@pytest.mark.parametrize(
  ('case', 'expected'),
  [
    (CASES['both ways'], {'concept/tokens': (2, 8), 'concept/embedding': (12,)}),
    (CASES['embedding alone'], {'concept/embedding': (16,)}),
    (CASES['tokens alone'], {'concept/tokens': (2, 8)}),
    (('daum24', SLICES, ('attention',)), {'concept/tokens': (2, 8)}),
    (('unet', UNET, ('attention', 'channels')), {'concept/tokens': (2, 8)}),
  ],
)
def test_a_word_has_a_share_in_each_way_that_the_network_has(case, expected):
  word = new_token.create(shapes(case), KEY, 2)
  assert {path: leaf.shape for path, leaf in word.items()} == expected


def test_new_tokens_start_about_the_class_each_by_itself_and_the_embedding_as_it_was():
  like = np.arange(8.0)
  word = new_token.create(shapes(CASES['both ways']), KEY, 3, like)
  apart = word['concept/tokens'] - like
  assert 0 < jnp.abs(apart).max() < 5 * new_token.SPREAD
  assert jnp.abs(apart[0] - apart[1]).max() > 0
  assert not word['concept/embedding'].any()
  rare = new_token.create(shapes(CASES['both ways']), KEY, 3)
  np.testing.assert_allclose(rare['concept/tokens'], apart, atol=1e-6)


def test_a_word_that_nothing_would_read_is_refused():
  case = ('unet', UNET, ('channels',))
  with pytest.raises(ValueError, match=r'new token.*diffusion\.conditioner\.by'):
    new_token.create(shapes(case), KEY, 1)
