"""Laws of the methods: what moves, what is new, which loss is added and clipped."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.config import adapt as config_adapt
from ldm_jax.config import privacy as config_privacy
from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.diffusion import schedules
from ldm_jax.models import adapters
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.privacy import clipping, gradients, mechanisms
from ldm_jax.training import denoising_loss, methods, private_run
from ldm_jax.training.state import flatten, unflatten

KEY = jax.random.key(0)
LATENT, NUM_DRAWS, WEIGHT, CLIP_NORM = (2, 4, 4, 2), 2, 0.7, 0.05
SLICES = {
  'channels': (4, 4),
  'norm_groups': 2,
  'num_head_channels': 4,
  'num_heads': 1,
  'num_res_blocks': 1,
  'attention_levels': (False, True),
}
KINDS = {
  'dit': {'width': 12, 'num_blocks': 1, 'num_head_channels': 6},
  'unet': {'channels': (4, 4), 'norm_groups': 2, 'num_head_channels': 4},
  'daum24': SLICES,
}
CROSS = {
  'dit': r'dit/blocks_0/cross_attention/to_[kv]/(kernel|bias)',
  'unet': r'unet/middle_block/attention/transformer_blocks_0/attn2/to_[kv]/kernel',
  'daum24': r'unet/.*/cross_attention/to_[kv]/kernel',
}
WORD = {'concept/tokens', 'concept/embedding'}


def network(kind='dit', by=('attention', 'embedding'), **options):
  conditioner = {'width': 8, 'num_heads': 2}
  options = {**KINDS[kind], **options}
  return ConditionalDenoiser((0, 2), 2, 2, conditioner, options, kind, by)


def params_of(module):
  """Flat parameters that NumPy draws: no compilation, no zero anywhere."""
  rng = np.random.default_rng(0)
  inputs = jnp.zeros((1, *LATENT)), jnp.zeros(1, int), jnp.zeros((1, 2))
  found = flatten(jax.eval_shape(module.init, KEY, *inputs)['params'])
  return {p: rng.normal(0, 0.2, v.shape).astype(np.float32) for p, v in found.items()}


def section(method, **more):
  return override(defaults(), {'adapt.method': method, **more}).adapt


def parts(method, params, **more):
  chosen = section(method, **more)
  return methods.partition(method, {**params, **methods.added(chosen, params, KEY)})


# The names that a config may give are the names there are


def test_the_choices_of_a_config_are_those_that_the_code_has():
  assert set(config_adapt.METHODS) == set(methods.METHODS)
  assert set(config_privacy.CLIPPING) == set(clipping.RULES)
  assert set(config_privacy.GRADIENTS) == set(gradients.METHODS)


def test_each_mechanism_of_a_config_is_a_scheme_of_its_own():
  assert set(config_privacy.MECHANISMS) == set(mechanisms.MECHANISMS)
  for name, scheme in mechanisms.MECHANISMS.items():
    words = {'adapt.privacy.mechanism': name, 'adapt.privacy.max_batch_size': 40}
    privacy = override(defaults(), words).adapt.privacy
    assert type(private_run.configured(privacy, 50, 10)) is scheme
  known = {
    found
    for found in vars(mechanisms).values()
    if isinstance(found, type) and issubclass(found, mechanisms.Poisson)
  }
  assert set(mechanisms.MECHANISMS.values()) == known


# What moves


@pytest.mark.parametrize('kind', KINDS)
def test_each_method_moves_what_it_says_and_nothing_else(kind):
  params = params_of(network(kind))
  every = set(params)
  moved = {name: set(parts(name, params)[0]) for name in methods.METHODS}
  assert moved['full'] == every
  few = ('/bias', '/scale')
  assert moved['bias'] == {path for path in every if path.endswith(few)}
  assert (
    0
    < sum(params[path].size for path in moved['bias'])
    < 0.1 * sum(value.size for value in params.values())
  )
  learned = adapters.DOWN, adapters.UP
  assert moved['lora'] and all(path.endswith(learned) for path in moved['lora'])
  assert moved['textual_inversion'] == WORD
  conditioner = {path for path in every if path.startswith('conditioner/')}
  assert moved['dreambooth'] == every - conditioner | WORD
  cross = {path for path in every if re.fullmatch(CROSS[kind], path)}
  assert cross and moved['custom_diffusion'] == cross | WORD
  for name in methods.METHODS:
    trained, frozen = parts(name, params)
    assert not set(trained) & set(frozen)
    for path in every - set(trained):
      np.testing.assert_array_equal(frozen[path], params[path])


@pytest.mark.parametrize(
  'module',
  [network(by=('embedding',)), network('unet', middle_attention=False)],
)
def test_keys_and_values_are_refused_where_nothing_attends_to_conditions(module):
  with pytest.raises(ValueError, match=r"'custom_diffusion'.*keys and values.*by"):
    parts('custom_diffusion', params_of(module))


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (
      {'adapt.method': 'textual_inversion', 'adapt.prior.weight': 1},
      'only the new token',
    ),
    ({'adapt.method': 'dreambooth', 'adapt.init': 'scratch'}, 'adapt.init'),
  ],
)
def test_a_prior_that_could_not_be_preserved_is_refused(words, message):
  with pytest.raises(ValueError, match=f'{message}.*adapt.prior.weight=0'):
    methods.prior_weight(override(defaults(), words).adapt)
  words = {**words, 'adapt.prior.weight': 0}
  assert methods.prior_weight(override(defaults(), words).adapt) == 0


# The loss and its gradients


@pytest.fixture(scope='module')
def case():
  """A small transformer with a word: (losses, trained, frozen, patients, keys)."""
  rng = np.random.default_rng(1)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  module = network()
  schedule = schedules.schedule('linear', 20, beta_start=1e-4, beta_end=7e-2)
  losses = denoising_loss.denoising_losses(module, schedule, 'v', 0.2)
  trained, frozen = parts('dreambooth', params_of(module))
  trained = {p: v if p not in WORD else normal(*v.shape) for p, v in trained.items()}
  frozen |= {'prior/z': normal(5, *LATENT), 'prior/conditions': normal(5, 2)}
  frozen = jax.tree.map(jnp.asarray, frozen)
  patients = {
    'z': normal(4, 2, *LATENT),
    'attributes': normal(4, 2, 2),
    'present': np.array([[True, True], [True, False], [True, True], [True, True]]),
  }
  return losses, trained, frozen, patients, jax.random.split(KEY, 4)


def loss_of(losses, frozen, **more):
  more = {'adapt.prior.weight': WEIGHT, **more}
  loss = methods.patient_loss(section('dreambooth', **more), losses, NUM_DRAWS)
  return lambda trained, example, key: loss(trained, frozen, example, key)


def test_the_loss_is_the_subjects_plus_the_weighted_loss_of_the_class(case):
  """By hand: two networks, one that has the word and one that never had it."""
  losses, trained, frozen, patients, keys = case
  example = {name: leaf[1] for name, leaf in patients.items()}
  network = {p: v for p, v in {**frozen, **trained}.items() if 'prior/' not in p}
  without = unflatten({p: v for p, v in network.items() if p not in WORD})
  own_keys = jax.random.split(keys[1], 4)
  class_keys = jax.random.split(jax.random.fold_in(own_keys[0], 0x70726972), 3)
  chosen = jax.random.randint(class_keys[0], (2,), 0, 5)

  @jax.jit
  def both(params, without):
    twice = lambda a: np.repeat(a, NUM_DRAWS, axis=0)
    z, attributes = twice(example['z']), twice(example['attributes'])
    own = losses(params, z, attributes, own_keys)
    z, conditions = (frozen[f'prior/{name}'][chosen] for name in ('z', 'conditions'))
    return own, losses(without, z, conditions, class_keys[1:])

  own, of_class = both(unflatten(network), without)
  expected = own[:2].mean() + WEIGHT * of_class.mean()  # the second volume is absent
  found = jax.jit(loss_of(losses, frozen))(trained, example, keys[1])
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert of_class.mean() > 0.01


def test_without_a_weight_the_loss_is_the_plain_one(case):
  losses, *_ = case
  chosen = section('dreambooth', **{'adapt.prior.weight': 0})
  plain = denoising_loss.patient_loss(losses, NUM_DRAWS)
  found = methods.patient_loss(chosen, losses, NUM_DRAWS)
  assert found.__code__ is plain.__code__ and losses in [
    cell.cell_contents for cell in found.__closure__
  ]


def summed(case, method, mask, **more):
  losses, trained, frozen, patients, keys = case
  add = functools.partial(
    gradients.clipped_sum, loss_of(losses, frozen, **more), method=method, microbatch=0
  )
  call = lambda trained, patients: add(trained, patients, mask, keys, CLIP_NORM)
  return jax.jit(call)(trained, patients)


def test_the_clipped_sum_of_word_and_network_is_that_of_plain_gradients(case):
  losses, trained, frozen, patients, keys = case
  everyone = np.ones(4, bool)
  found = summed(case, 'ghost', everyone)
  reference = jax.jit(
    lambda trained, patients: gradients.reference_clipped_sum(
      loss_of(losses, frozen), trained, patients, everyone, keys, CLIP_NORM
    )
  )(trained, patients)
  for path in trained:
    np.testing.assert_allclose(found[path], reference[path], atol=1e-5, err_msg=path)
  for path in WORD:
    assert jnp.abs(found[path]).max() > 1e-4


def test_no_weight_of_the_class_lifts_a_patient_above_the_clip_norm(case):
  alone = np.array([True, False, False, False])
  found = summed(case, 'ghost', alone, **{'adapt.prior.weight': 1e6})
  norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in found.values()))
  assert norm == pytest.approx(CLIP_NORM, rel=4e-3) and norm <= CLIP_NORM
