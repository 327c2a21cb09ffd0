"""Laws of the clipped sum: bounded reach, exact masks, one compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from ldm_jax import prng
from ldm_jax.privacy import clipping
from ldm_jax.privacy.gradients import clipped_sum, reference_clipped_sum

NUM_PATIENTS = 8


def make_params(seed=0, dtype=jnp.float32):
  key = jax.random.split(jax.random.key(seed), 3)
  return {
    'conv': jax.random.normal(key[0], (3, 3, 1, 4), dtype) * 0.5,
    'dense': {
      'kernel': jax.random.normal(key[1], (4, 3), dtype),
      'bias': jnp.zeros((3,), dtype),
    },
    'scale': jax.random.normal(key[2], (), dtype),
  }


def loss_fn(params, example, key):
  """A patient's loss: two volumes (m,h,w,1), a target (3,), noise from the key."""
  x, y = example['x'], example['y']
  x = x + 0.1 * jax.random.normal(key, x.shape, x.dtype)
  h = jax.lax.conv_general_dilated(
    x, params['conv'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  h = jnp.mean(jax.nn.silu(h), axis=(0, 1, 2)) * params['scale']
  out = h @ params['dense']['kernel'] + params['dense']['bias']
  return jnp.sum((out - y) ** 2)


def make_batch(seed=0, n=NUM_PATIENTS, scale=1.0):
  rng = np.random.default_rng(seed)
  batch = {
    'x': jnp.asarray(rng.normal(size=(n, 2, 6, 6, 1)) * scale, jnp.float32),
    'y': jnp.asarray(rng.normal(size=(n, 3)) * 3, jnp.float32),
  }
  return batch, jax.random.split(jax.random.key(seed), n)


def norm(tree):
  return float(
    np.sqrt(
      sum(np.sum(np.square(np.asarray(g, np.float64))) for g in jax.tree.leaves(tree))
    )
  )


def difference(a, b):
  return jax.tree.map(lambda u, v: np.asarray(u) - np.asarray(v), a, b)


summed = jax.jit(
  lambda params, batch, mask, keys, clip: clipped_sum(
    loss_fn, params, batch, mask, keys, clip, microbatch=2
  )
)


@pytest.mark.parametrize('microbatch', [1, 2, 8])
@pytest.mark.parametrize('clip_norm', [0.01, 1.0, 100.0])
def test_clipped_sum_equals_the_reference(microbatch, clip_norm):
  params = make_params()
  for seed in range(3):
    batch, keys = make_batch(seed)
    mask = np.random.default_rng(seed).random(NUM_PATIENTS) < 0.6
    ours = clipped_sum(loss_fn, params, batch, mask, keys, clip_norm, microbatch)
    theirs = reference_clipped_sum(loss_fn, params, batch, mask, keys, clip_norm)
    assert norm(difference(ours, theirs)) <= 1e-5 * max(norm(theirs), clip_norm)


def test_clipped_sum_without_clipping_is_the_gradient_of_the_summed_loss():
  params = make_params()
  batch, keys = make_batch(1)
  ours = summed(params, batch, np.ones(NUM_PATIENTS, bool), keys, 1e6)
  total = lambda p: jnp.sum(jax.vmap(loss_fn, (None, 0, 0))(p, batch, keys))
  assert norm(difference(ours, jax.grad(total)(params))) <= 1e-5 * norm(ours)


@settings(max_examples=25, deadline=None)
@given(
  seed=st.integers(0, 2**16),
  row=st.integers(0, NUM_PATIENTS - 1),
  clip_norm=st.sampled_from([1e-3, 0.3, 5.0]),
  scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_one_patient_changes_the_sum_by_at_most_the_clip_norm(
  seed, row, clip_norm, scale
):
  params = make_params(seed % 7)
  batch, keys = make_batch(seed, scale=scale)
  mask = np.random.default_rng(seed).random(NUM_PATIENTS) < 0.7
  without, with_row = mask.copy(), mask.copy()
  without[row], with_row[row] = False, True
  change = difference(
    summed(params, batch, with_row, keys, clip_norm),
    summed(params, batch, without, keys, clip_norm),
  )
  # float32 rounding of a sum whose norm is at most 8 C
  assert norm(change) <= clip_norm * (1 + 1e-5)


@pytest.mark.parametrize('generator', ['threefry2x32', 'rbg', 'unsafe_rbg'])
def test_what_a_patient_adds_depends_on_no_other_row_whatever_made_the_keys(generator):
  """Draws of rbg keys under vmap depend on the whole batch."""
  params, (batch, _) = make_params(), make_batch(9)
  keys = jax.random.split(jax.random.key(5, impl=generator), NUM_PATIENTS)
  rows = np.arange(NUM_PATIENTS)
  whole = summed(params, batch, rows > 0, keys, 1e3)
  parts = [summed(params, batch, rows == row, keys, 1e3) for row in rows[1:]]
  # In other places of the batch, too.
  moved = jax.tree.map(lambda a: a[::-1], (batch, keys))
  last = summed(params, moved[0], rows == 0, moved[1], 1e3)
  total = jax.tree.map(lambda *leaves: sum(leaves), *parts)
  assert norm(difference(whole, total)) <= 1e-5 * norm(whole)
  assert norm(difference(last, parts[-1])) <= 1e-5 * norm(last)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf, 1e30])
def test_a_patient_whose_gradient_is_not_finite_contributes_zero(bad):
  params = make_params()
  batch, keys = make_batch(2)
  mask = np.ones(NUM_PATIENTS, bool)
  poisoned = {'x': batch['x'].at[3, 0, 0, 0, 0].set(bad), 'y': batch['y']}
  without = mask.copy()
  without[3] = False
  ours = summed(params, poisoned, mask, keys, 1.0)
  expected = summed(params, batch, without, keys, 1.0)
  assert norm(difference(ours, expected)) == 0.0


@pytest.mark.parametrize('garbage', [np.nan, np.inf, 1e9])
def test_changing_a_padded_row_changes_nothing(garbage):
  params = make_params()
  batch, keys = make_batch(3)
  mask = np.array([1, 1, 1, 0, 0, 1, 0, 0], bool)
  other = jax.tree.map(lambda a: a.at[~mask].set(garbage), batch)
  assert (
    norm(
      difference(
        summed(params, batch, mask, keys, 1.0), summed(params, other, mask, keys, 1.0)
      )
    )
    == 0.0
  )


def test_an_empty_draw_sums_to_exact_zero():
  batch, keys = make_batch(4)
  total = summed(make_params(), batch, np.zeros(NUM_PATIENTS, bool), keys, 1.0)
  assert norm(total) == 0.0


def test_all_masks_share_one_compilation():
  traces = []

  def counted(params, batch, mask, keys):
    traces.append(1)
    return clipped_sum(loss_fn, params, batch, mask, keys, 1.0, microbatch=2)

  step = jax.jit(counted)
  params, (batch, keys) = make_params(), make_batch(5)
  for seed in range(6):
    step(
      params, batch, np.random.default_rng(seed).random(NUM_PATIENTS) < 0.2 * seed, keys
    )
  assert len(traces) == 1


def test_both_volumes_of_a_patient_share_one_clipped_gradient():
  params = make_params()
  batch, keys = make_batch(6, n=1, scale=50.0)
  patient = clipped_sum(loss_fn, params, batch, np.ones(1, bool), keys, 0.5)
  assert norm(patient) <= 0.5 * (1 + 1e-6)

  # the broken variant, clipping each volume, doubles what a patient can do
  split = {'x': batch['x'][0][:, None], 'y': jnp.repeat(batch['y'], 2, 0)}
  same = jnp.repeat(split['x'][:1], 2, 0)
  per_volume = clipped_sum(
    loss_fn,
    params,
    {**split, 'x': same},
    np.ones(2, bool),
    jnp.stack([keys[0], keys[0]]),
    0.5,
  )
  assert norm(per_volume) > 0.9


def test_four_devices_sum_what_one_device_sums():
  devices = jax.devices()
  if len(devices) < 4:
    pytest.skip('needs 4 (virtual) devices')
  mesh = Mesh(np.array(devices[:4]), ('data',))
  rows = PartitionSpec('data')

  def local(params, batch, mask, keys):
    part = clipped_sum(loss_fn, params, batch, mask, keys, 0.3, microbatch=1)
    return jax.lax.psum(part, 'data')

  params, (batch, keys) = make_params(), make_batch(7)
  mask = np.array([1, 0, 1, 1, 1, 1, 0, 1], bool)
  sharded = jax.jit(
    jax.shard_map(
      local,
      mesh=mesh,
      in_specs=(PartitionSpec(), rows, rows, rows),
      out_specs=PartitionSpec(),
    )
  )
  ours = sharded(params, batch, mask, keys)
  one = clipped_sum(loss_fn, params, batch, mask, keys, 0.3)
  assert norm(difference(ours, one)) <= 1e-5 * norm(one)


def test_low_precision_gradients_are_clipped_and_summed_in_float32():
  params = make_params(dtype=jnp.bfloat16)
  batch, keys = make_batch(8)
  batch = jax.tree.map(lambda a: a.astype(jnp.bfloat16), batch)
  total = summed(params, batch, np.ones(NUM_PATIENTS, bool), keys, 0.1)
  assert {leaf.dtype for leaf in jax.tree.leaves(total)} == {jnp.dtype('float32')}
  assert norm(total) <= NUM_PATIENTS * 0.1


def test_the_norm_of_many_entries_never_rounds_below_the_truth():
  tree = {'a': jnp.full((4_000_000,), 0.37), 'b': jnp.full((1000, 33), 1e-3)}
  dot = lambda trained, example, key: sum(
    map(jnp.vdot, trained.values(), tree.values())
  )
  rows = np.zeros(1), np.ones(1, bool), jax.random.split(jax.random.key(0), 1)
  assert norm(clipped_sum(dot, tree, *rows, 1.0)) <= 1.0


@pytest.mark.parametrize('clip_norm', [1.0, 0.3])
@pytest.mark.parametrize('rule', clipping.RULES)
def test_no_rounding_takes_16384_aligned_patients_beyond_as_many_norms(rule, clip_norm):
  num, directions = 16_384, {'a': jnp.full(3, 50.0), 'b': jnp.full(2, 70.0)}
  dot = lambda trained, example, key: sum(
    map(jnp.vdot, trained.values(), directions.values())
  )
  rows = np.zeros(num), np.ones(num, bool), prng.numbered(prng.key(0), num)
  total = jax.jit(
    lambda trained: clipped_sum(dot, trained, *rows, clip_norm, 4, clipping=rule)
  )(directions)
  assert 0.997 * num * clip_norm < norm(total) <= num * clip_norm


def of_rule(rule, params, batch, keys, clip_norm=0.3, mask=None):
  mask = np.ones(NUM_PATIENTS, bool) if mask is None else mask
  return clipped_sum(loss_fn, params, batch, mask, keys, clip_norm, 0, clipping=rule)


@pytest.mark.parametrize('rule', clipping.RULES)
@pytest.mark.parametrize('scale', [1e-4, 1.0, 1e4])
def test_one_patient_is_within_the_clip_norm_by_every_rule(rule, scale):
  params, (batch, keys) = make_params(), make_batch(4, scale=scale)
  for row in range(3):
    alone = of_rule(rule, params, batch, keys, mask=np.arange(NUM_PATIENTS) == row)
    assert norm(alone) <= 0.3  # with the bit, where the rule has one


def test_normalised_gradients_have_one_length_whatever_their_own():
  params, (batch, keys) = make_params(), make_batch(4)
  one = np.arange(NUM_PATIENTS) == 2
  for clip_norm in (1e-3, 1e-2):
    found = norm(of_rule('normalised', params, batch, keys, clip_norm, one))
    assert found == pytest.approx(clip_norm, rel=1e-2)


def test_each_layer_has_its_equal_share_of_the_norm():
  params, (batch, keys) = make_params(), make_batch(4, scale=10.0)
  alone = of_rule('per_layer', params, batch, keys, 1e-3, np.arange(NUM_PATIENTS) == 1)
  leaves = jax.tree.leaves(alone)
  for leaf in leaves:
    share = (1 - clipping.MARGIN) * 1e-3 / np.sqrt(len(leaves))
    assert norm(leaf) == pytest.approx(share, rel=1e-3)


def test_bits_tell_how_many_lie_within_the_norm():
  params, (batch, keys) = make_params(), make_batch(4)
  norms = []
  for row in range(NUM_PATIENTS):
    only = np.arange(NUM_PATIENTS) == row
    norms.append(norm(of_rule('constant', params, batch, keys, 1e6, only)))
  clip_norm = float(np.median(norms))
  within = np.sum(np.array(norms) <= clip_norm * np.sqrt(1 - clipping.BIT_SHARE**2))
  _, bits = of_rule('adaptive', params, batch, keys, clip_norm)
  signed = float(bits) / (clipping.BIT_SHARE * (1 - clipping.MARGIN) * clip_norm)
  assert signed == pytest.approx(2 * within - NUM_PATIENTS, abs=1e-3)


def test_frozen_parameters_get_no_gradient():
  params = make_params()
  trained = {'dense': params['dense']}
  batch, keys = make_batch(9)
  loss = lambda part, example, key: loss_fn({**params, **part}, example, key)
  total = clipped_sum(loss, trained, batch, np.ones(NUM_PATIENTS, bool), keys, 1.0)
  assert jax.tree.structure(total) == jax.tree.structure(trained)


def test_impossible_arguments_are_refused_with_the_key_to_change():
  params, (batch, keys) = make_params(), make_batch(0)
  mask = np.ones(NUM_PATIENTS, bool)
  with pytest.raises(ValueError, match=r'adapt\.privacy\.microbatch'):
    clipped_sum(loss_fn, params, batch, mask, keys, 1.0, microbatch=3)
  for clip_norm in (0.0, -1.0, float('nan'), float('inf')):
    with pytest.raises(ValueError, match=r'adapt\.privacy\.clip_norm'):
      clipped_sum(loss_fn, params, batch, mask, keys, clip_norm)
  with pytest.raises(ValueError, match='one row per patient'):
    clipped_sum(loss_fn, params, batch, mask[:4], keys, 1.0)
