"""Laws of the private step: one patient, one clipped gradient, noise once."""

import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.data import batching
from ldm_jax.privacy import clipping, gradients, mechanisms, sampling, secret_key
from ldm_jax.privacy.noise import privatise
from ldm_jax.training import denoising_loss, methods, private_run, private_step
from ldm_jax.training.mesh import make_mesh, put_examples, state_shardings

KEY, NOISE_KEY = jax.random.key(0), secret_key.new_noise_key(0)
CLIP_NORM, SIGMA, EXPECTED, CHUNK = 0.5, 1.3, 6.0, 4

COMMON = {
  'num_patients': 12,
  'batch_size': EXPECTED,
  'steps': 20,
  'clip_norm': CLIP_NORM,
}


def build(loss, mesh, optimizer, sigma=SIGMA, microbatch=1):
  return private_step.private_step(
    loss,
    optimizer,
    mesh,
    0.9,
    mechanisms.Poisson(**COMMON, noise_multiplier=sigma),
    microbatch=microbatch,
  )


def chunks(patients, drawn, mesh, spoil=None):
  """As training.private_run makes them; `spoil` changes what the padding holds."""
  for chosen, mask in batching.chunks(np.asarray(drawn, int), CHUNK):
    examples = {name: leaf[chosen] for name, leaf in patients.items()}
    if spoil is not None:
      for leaf in examples.values():
        leaf[~mask] = spoil
      chosen = np.where(mask, chosen, 7)
    yield put_examples(mesh, (examples, mask, chosen.astype(np.int32)))


def after(toy, start, params, patients, mesh, draws, spoil=None, **options):
  optimizer = optax.adam(1e-2)
  step = build(toy[0], mesh, optimizer, **options)
  current = start(params, optimizer, mesh)
  for drawn in draws:
    current = step(current, {}, chunks(patients, drawn, mesh, spoil), KEY, NOISE_KEY)
  return current


DRAWS = ((0, 3, 4, 7, 8, 9, 11), (), (2,), tuple(range(12)))


@pytest.mark.parametrize(('data', 'fsdp'), [(4, 1), (2, 2)])
def test_four_devices_equal_one(toy, start, params, patients, difference, data, fsdp):
  one = after(toy, start, params, patients, make_mesh(1), DRAWS)
  four = after(toy, start, params, patients, make_mesh(data, fsdp), DRAWS)
  assert difference(one, four) < 1e-5


def test_the_microbatch_changes_nothing_but_the_memory(
  toy, start, params, patients, difference
):
  one = after(toy, start, params, patients, make_mesh(1), DRAWS)
  four = after(toy, start, params, patients, make_mesh(1), DRAWS, microbatch=4)
  assert difference(one, four) < 1e-5


def test_devices_that_have_fewer_rows_than_a_microbatch_take_fewer(
  toy, start, params, patients, difference
):
  """So that a run goes on with more devices or processes under the same config."""
  one = after(toy, start, params, patients, make_mesh(1), DRAWS, microbatch=CHUNK)
  four = after(toy, start, params, patients, make_mesh(4), DRAWS, microbatch=CHUNK)
  assert difference(one, four) < 1e-5


@pytest.mark.parametrize('spoil', [1e6, np.nan])
def test_what_a_padded_row_holds_changes_nothing(toy, start, params, patients, spoil):
  clean = after(toy, start, params, patients, make_mesh(2), DRAWS)
  spoilt = after(toy, start, params, patients, make_mesh(2), DRAWS, spoil)
  jax.tree.map(np.testing.assert_array_equal, clean, spoilt)


def test_an_empty_batch_still_takes_a_noisy_step(toy, start, params, patients):
  mesh, optimizer = make_mesh(2), optax.sgd(1.0)
  step = build(toy[0], mesh, optimizer)
  result = step(start(params, optimizer, mesh), {}, (), KEY, NOISE_KEY)
  zeros = jax.tree.map(jnp.zeros_like, params)
  noise = privatise(zeros, NOISE_KEY, 0, SIGMA, CLIP_NORM, EXPECTED)
  assert int(result.step) == 1
  for path, value in params.items():
    expected = value - noise[path]
    np.testing.assert_allclose(result.trained[path], expected, rtol=1e-6, atol=1e-7)
    assert not np.array_equal(result.trained[path], value)


def test_a_run_compiles_once_whatever_is_drawn(toy, start, params, patients, caplog):
  """One program each sums a chunk, adds noise, takes the step; empty draws too."""
  sampler = sampling.PoissonSampler(12, 0.3, b'secret')
  draws = [(), *(sampler.draw(step) for step in range(12)), (), tuple(range(12))]
  assert len({len(drawn) for drawn in draws}) > 4
  with caplog.at_level(logging.WARNING), jax.log_compiles():
    after(toy, start, params, patients, make_mesh(4), draws)
  compiled = re.findall(r'Compiling (?:jit\()?(\w+)', caplog.text)
  for name in ('accumulate', 'privatise', 'update'):
    assert compiled.count(name) == 1, name


def banded_run(toy, start, params, patients, steps, step=None, first=0):
  """Steps of a run with three bands on two devices, from `first` on: (state, step)."""
  mesh, optimizer = make_mesh(2), optax.sgd(1.0)
  common = {**COMMON, 'batch_size': 4, 'steps': 6, 'noise_multiplier': SIGMA}
  scheme = mechanisms.Banded(**common, num_bands=3, strategy=(0.8, 0.48, 0.36))
  step = step or private_step.private_step(toy[0], optimizer, mesh, 0.9, scheme)
  current = start(params, optimizer, mesh).replace(step=jnp.int32(first))
  current = jax.device_put(current, state_shardings(mesh, current))
  for _ in range(steps):
    current = step(current, {}, (), KEY, NOISE_KEY)
  return current, step


def test_correlated_noise_resumes_in_the_same_bits_with_one_compilation(
  toy, start, params, patients, caplog
):
  """Empty draws: parameters move by noise alone. Step 3 alone, then after 0, 1, 2."""
  arguments = toy, start, params, patients
  with caplog.at_level(logging.WARNING), jax.log_compiles():
    _, step = banded_run(*arguments, 3)
    unbroken, _ = banded_run(*arguments, 1, step, first=3)
    other, _ = banded_run(*arguments, 1, step, first=2)
    back, _ = banded_run(*arguments, 1, step, first=3)
  fresh, _ = banded_run(*arguments, 1, first=3)
  jax.tree.map(np.testing.assert_array_equal, unbroken, back)
  jax.tree.map(np.testing.assert_array_equal, unbroken, fresh)
  assert not np.array_equal(
    other.trained['conditioner/w'], back.trained['conditioner/w']
  )
  compiled = re.findall(r'Compiling (?:jit\()?(\w+)', caplog.text)
  assert compiled.count('privatise') == compiled.count('update') == 1


def test_the_memory_of_the_noise_is_no_part_of_the_state(toy, start, params, patients):
  state_, _ = banded_run(toy, start, params, patients, 3)
  plain = start(params, optax.sgd(1.0), make_mesh(2))
  assert jax.tree.structure(state_) == jax.tree.structure(plain)
  shapes = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree)]
  assert shapes(state_) == shapes(plain)


def test_a_step_draws_the_patients_it_counts_and_no_others(toy, patients, tmp_path):
  step = build(toy[0], make_mesh(1), optax.sgd(1.0))
  fewer = {name: leaf[:11] for name, leaf in patients.items()}
  with pytest.raises(ValueError, match=r'the 12 patients.*11 patients with 11 names'):
    private_run.take_steps(
      step, fewer, range(11), CHUNK, None, {}, mesh=None, key=KEY, secret_key=NOISE_KEY
    )


@pytest.mark.parametrize('devices', [1, 4])
def test_noise_is_added_once_whatever_the_devices(start, patients, devices):
  """On zero gradients the step moves by N(0, (sigma C / B)^2)."""
  mesh, optimizer = make_mesh(devices), optax.sgd(1.0)
  loss = lambda trained, frozen, example, key: 0.0 * trained['w'].sum()
  step = build(loss, mesh, optimizer)
  params = {'w': jnp.zeros((500, 400))}
  draws = chunks(patients, range(12), mesh)
  moved = step(start(params, optimizer, mesh), {}, draws, KEY, NOISE_KEY).trained['w']
  deviation = SIGMA * CLIP_NORM / EXPECTED
  assert np.std(moved) == pytest.approx(deviation, rel=0.01)
  assert abs(np.mean(moved)) < 5 * deviation / np.sqrt(200_000)


def test_one_patient_moves_the_sum_by_at_most_the_clip_norm(
  toy, start, params, patients
):
  """Measured through the whole step: without noise, by plain gradient descent."""
  mesh, optimizer = make_mesh(4), optax.sgd(1.0)
  patients['y'][5] *= 1e4
  tiny = 1e-12

  def moved(drawn):
    step = build(toy[0], mesh, optimizer, sigma=tiny)
    current = start(params, optimizer, mesh)
    return step(current, {}, chunks(patients, drawn, mesh), KEY, NOISE_KEY).trained

  with_, without = moved((2, 5, 9)), moved((2, 9))
  parts = jax.tree.map(lambda a, b: np.sum(np.square(a - b)), with_, without)
  norm = EXPECTED * np.sqrt(sum(jax.tree.leaves(parts)))
  assert norm == pytest.approx((1 - clipping.MARGIN) * CLIP_NORM, rel=1e-4)
  assert norm <= CLIP_NORM


def test_no_two_draws_of_a_run_share_a_key_or_a_number(
  start, params, patients, normal_draws
):
  """Instruments every normal draw of the compiled step; its loss draws none."""
  mesh, optimizer = make_mesh(4), optax.sgd(1.0)
  loss = lambda trained, frozen, example, key: 0.0 * trained['unet/conv/s']
  step, current = build(loss, mesh, optimizer), start(params, optimizer, mesh)
  vectors = []
  for drawn in DRAWS * 3:
    before = jax.tree.map(np.array, current.trained)
    current = step(current, {}, chunks(patients, drawn, mesh), KEY, NOISE_KEY)
    moved = jax.tree.map(lambda a, b: np.ravel(a - b), current.trained, before)
    vectors.append(np.concatenate(jax.tree.leaves(moved)))
  jax.effects_barrier()
  # A device may tell of its copy of the one draw; a step has one key and no other has.
  assert len(set(normal_draws)) == len(DRAWS) * 3
  # Within a step and between steps numbers repeat as the public grid makes them only.
  numbers = np.round(np.concatenate(vectors), 7)
  assert len(np.unique(numbers)) > 0.97 * numbers.size
  correlations = np.corrcoef(vectors) - np.eye(len(vectors))
  assert np.max(np.abs(correlations)) < 5 / np.sqrt(vectors[0].size)


# All volumes of a patient


def volume_losses(params, z, attributes, keys):
  """Stands in for the denoising losses: -> (m,)."""
  del keys
  flat = z.reshape(len(z), -1)
  return jnp.square(flat @ params['w'] - attributes[:, 0])


@pytest.fixture
def pairs():
  """Three patients of two volumes each; the last one lacks the second."""
  rng = np.random.default_rng(2)
  return {
    'z': rng.normal(size=(3, 2, 2, 2, 1)).astype(np.float32),
    'attributes': rng.normal(size=(3, 2, 1)).astype(np.float32),
    'present': np.array([[True, True], [True, True], [True, False]]),
  }


def summed(pairs, mask=(True, True, True)):
  loss = denoising_loss.patient_loss(volume_losses, noise_multiplicity=1)
  weights = {'w': jnp.asarray([0.5, -1.0, 2.0, 0.1])}
  return gradients.clipped_sum(
    lambda trained, example, key: loss(trained, {}, example, key),
    weights,
    jax.tree.map(jnp.asarray, pairs),
    jnp.asarray(mask),
    jax.random.split(KEY, 3),
    CLIP_NORM,
  )['w']


def test_both_volumes_of_a_patient_enter_one_clipped_gradient(pairs):
  weights = {'w': jnp.asarray([0.5, -1.0, 2.0, 0.1])}
  each = [
    jax.grad(lambda w, z, a: volume_losses(w, z[None], a[None], None)[0])(
      weights, pairs['z'][0, i], pairs['attributes'][0, i]
    )['w']
    for i in range(2)
  ]
  mean = (each[0] + each[1]) / 2
  bound = (1 - clipping.MARGIN) * CLIP_NORM
  expected = mean * min(1.0, bound / float(jnp.linalg.norm(mean)))
  found = summed(pairs, (True, False, False))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('factor', [2.0, 1e3, 1e30])
def test_no_second_volume_lifts_a_patient_above_the_clip_norm(pairs, factor):
  pairs['z'][1, 1] *= factor
  share = summed(pairs) - summed(pairs, (True, False, True))
  assert float(jnp.linalg.norm(share)) <= CLIP_NORM * (1 + 1e-5)


def test_a_volume_that_is_not_present_counts_nothing(pairs):
  before = summed(pairs)
  pairs['z'][2, 1] = 1e3
  pairs['attributes'][2, 1] = -1e3
  np.testing.assert_array_equal(summed(pairs), before)


# In units of the clip norm


@pytest.mark.parametrize('name', ['sgd', 'adam'])
def test_the_step_of_a_clipped_gradient_does_not_know_the_clip_norm(name):
  """All gradients clipped: C times larger clipping makes C times larger gradients."""
  config = override(defaults(), {'adapt.optimizer': name})
  gradient, moved = {'w': jnp.asarray([0.3, -2.0])}, []
  for clip_norm in (1.0, 0.01):
    config.adapt.privacy.clip_norm = clip_norm
    optimizer = private_step.optimizer(config.adapt)
    scaled = jax.tree.map(lambda leaf, c=clip_norm: c * leaf, gradient)
    moved.append(optimizer.update(scaled, optimizer.init(gradient), gradient)[0]['w'])
  np.testing.assert_allclose(*moved, rtol=1e-5)


def test_without_normalising_plain_descent_follows_the_clip_norm():
  words = {'adapt.optimizer': 'sgd', 'adapt.privacy.normalize': False}
  config = override(defaults(), {**words, 'adapt.privacy.clip_norm': 0.01})
  optimizer, gradient = private_step.optimizer(config.adapt), {'w': jnp.ones(2)}
  found, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
  np.testing.assert_allclose(found['w'], -config.adapt.learning_rate)


def test_a_cosine_schedule_warms_up_and_decays_to_a_twentieth():
  words = {'adapt.optimizer': 'sgd', 'adapt.privacy': None, 'adapt.steps': 50}
  config = override(defaults(), {**words, 'adapt.schedule': 'cosine'})
  optimizer, gradient = private_step.optimizer(config.adapt), {'w': jnp.ones(())}
  memory, rates = optimizer.init(gradient), []
  for _ in range(51):
    moved, memory = optimizer.update(gradient, memory)
    rates.append(-float(moved['w']) / config.adapt.learning_rate)
  assert rates[0] == 0
  assert max(rates) == pytest.approx(1)
  assert rates[-1] == pytest.approx(0.05)
  assert all(np.diff(rates[6:]) < 0)


# Which parameters move


def test_the_attention_method_leaves_all_else_as_it_was(toy, start, params, patients):
  trained, frozen = methods.partition('attention', params)
  assert set(trained) == {'conditioner/w', 'unet/attention/b'}
  kept = {path: np.array(leaf) for path, leaf in frozen.items()}
  mesh, optimizer = make_mesh(4), optax.adam(1e-2)
  step = build(toy[0], mesh, optimizer)
  current = start(trained, optimizer, mesh)
  for drawn in DRAWS:
    current = step(current, frozen, chunks(patients, drawn, mesh), KEY, NOISE_KEY)
  result = {**frozen, **current.ema}
  assert set(result) == set(params)
  for path, leaf in kept.items():
    np.testing.assert_array_equal(result[path], leaf)
  for path in trained:
    assert not np.array_equal(result[path], params[path])


def test_where_devices_share_the_state_each_updates_its_part_of_it(
  toy, start, params, patients
):
  """No device gathers the optimiser's state or the averages, before or after."""
  mesh, optimizer = make_mesh(1, 4), optax.adam(1e-2)
  step = build(toy[0], mesh, optimizer)
  begun = start(params, optimizer, mesh)
  gradient = jax.device_put(params, jax.NamedSharding(mesh, jax.P()))
  program = step.update.lower(begun, gradient).compile()
  assert 'all-gather' not in program.as_text()
  after = program(begun, gradient)
  shared = [leaf for leaf in jax.tree.leaves(after.opt_state) if leaf.size >= 4]
  parts = [leaf.addressable_shards[0].data.size / leaf.size for leaf in shared]
  assert parts and sum(part == 0.25 for part in parts) >= len(parts) / 2
