"""Broken private steps, shipped so that the audit and the laws are seen to catch them.

`faulty` is the private step written again in a few lines, with one fault at a time.
Without a fault it equals the step that trains, and both pass everything below.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from ldm_jax.data import batching
from ldm_jax.privacy import canaries, gradients, mechanisms, noise, secret_key
from ldm_jax.training import private_step, state
from ldm_jax.training.mesh import EXAMPLES, make_mesh, put_examples

CLIP_NORM, SIGMA, EXPECTED, DELTA = 0.5, 3.6, 8.0, 1e-5
PATIENTS, CANARIES, STEPS = 10, 1000, 12
CHUNK, MICROBATCH, DEVICES = 1024, 16, 4
KEY = jax.random.key(0)


def patient_loss(trained, frozen, example, key):
  """Mean over both volumes of a patient; linear, so that gradients are known."""
  del frozen, key
  return jnp.mean(example['x'] @ trained['w'])


LOSS = canaries.with_canaries(patient_loss, CLIP_NORM)


def real_step(mesh, optimizer):
  return private_step.private_step(
    LOSS,
    optimizer,
    mesh,
    0.9,
    mechanisms.Poisson(
      num_patients=PATIENTS + CANARIES,
      batch_size=EXPECTED,
      steps=STEPS,
      clip_norm=CLIP_NORM,
      noise_multiplier=SIGMA,
    ),
    microbatch=MICROBATCH,
  )


def faulty(fault, mesh, optimizer):
  """Builds the step (state, frozen, chunks, key, noise_key) -> state with a fault."""
  sigma = SIGMA / 2 if fault == 'noise halved' else SIGMA

  def volumes_as_patients(examples, mask, keys):
    num = examples['x'].shape[1]
    rows = {name: jnp.repeat(leaf, num, axis=0) for name, leaf in examples.items()}
    rows['x'] = examples['x'].reshape(-1, 1, examples['x'].shape[-1])
    return rows, jnp.repeat(mask, num), jnp.repeat(keys, num)

  def local_sum(trained, examples, mask, keys, step, noise_key):
    loss = lambda trained, example, key: LOSS(trained, {}, example, key)
    if fault == 'padded rows leak':
      mask = jnp.ones_like(mask)
    if fault == 'per volume':
      examples, mask, keys = volumes_as_patients(examples, mask, keys)
    if fault == 'clipped after averaging':
      each = jax.vmap(jax.grad(loss), (None, 0, 0))(trained, examples, keys)
      kept = lambda g: jnp.tensordot(mask.astype(g.dtype), g, 1) / EXPECTED
      mean = jax.tree.map(kept, each)
      scale = jnp.minimum(1.0, CLIP_NORM / optax.global_norm(mean))
      total = jax.tree.map(lambda g: g * EXPECTED * scale, mean)
    else:
      total = gradients.clipped_sum(
        loss, trained, examples, mask, keys, CLIP_NORM, MICROBATCH
      )
    if fault in PER_DEVICE:
      own = jax.random.fold_in(noise_key, jax.lax.axis_index('data'))
      noisy = noise.add_noise(total, own, step, SIGMA, CLIP_NORM)
      share = DEVICES if fault == 'noise of devices averaged' else 1
      total = jax.tree.map(lambda n, t: t + (n - t) / share, noisy, total)
    return jax.lax.psum(total, ('data', 'fsdp'))

  @jax.jit
  def summed(trained, chunk, key, step, noise_key):
    examples, mask, patients = chunk
    keys = jax.vmap(lambda patient: jax.random.fold_in(key, patient))(patients)
    return jax.shard_map(
      local_sum,
      mesh=mesh,
      in_specs=(P(), EXAMPLES, EXAMPLES, EXAMPLES, P(), P()),
      out_specs=P(),
      check_vma=False,
    )(trained, examples, mask, keys, step, noise_key)

  @jax.jit
  def update(current, total, noise_key):
    if fault in PER_DEVICE:
      gradient = jax.tree.map(lambda leaf: leaf / EXPECTED, total)
    else:
      step = 0 if fault == 'noise of one step' else current.step
      gradient = noise.privatise(total, noise_key, step, sigma, CLIP_NORM, EXPECTED)
    return state.advance(current, gradient, optimizer, 0.9)

  def step(current, frozen, chunks, key, noise_key):
    del frozen
    total = jax.tree.map(jnp.zeros_like, current.trained)
    for chunk in chunks:
      added = summed(
        current.trained, chunk, jax.random.fold_in(key, current.step), current.step,
        noise_key,
      )  # fmt: skip
      total = jax.tree.map(jnp.add, total, added)
    return update(current, total, noise_key)

  return step


PER_DEVICE = ('noise of every device', 'noise of devices averaged')


def build(fault, optimizer, devices=DEVICES):
  mesh = make_mesh(devices)
  step = real_step if fault == 'real' else functools.partial(faulty, fault)
  return mesh, step(mesh, optimizer)


def start(optimizer, mesh):
  params = {'w': jnp.zeros(6), canaries.LEAF: jnp.zeros(CANARIES)}
  replicated = jax.NamedSharding(mesh, P())
  return jax.device_put(state.create(params, optimizer), replicated)


@pytest.fixture(scope='module')
def everyone():
  """Ten patients of two volumes with large gradients, then the canaries."""
  rng = np.random.default_rng(0)
  x = np.zeros((PATIENTS + CANARIES, 2, 6), np.float32)
  x[:PATIENTS] = 20 * rng.normal(size=(PATIENTS, 2, 6))
  own = np.full(PATIENTS + CANARIES, canaries.NOBODY, np.int32)
  own[PATIENTS:] = np.arange(CANARIES)
  return {'x': x, canaries.LEAF: own}


def chunks(everyone, drawn, mesh):
  for chosen, mask in batching.chunks(np.asarray(drawn), CHUNK):
    examples = {name: leaf[chosen] for name, leaf in everyone.items()}
    yield put_examples(mesh, (examples, mask, chosen.astype(np.int32)))


def audited(fault, everyone, devices=DEVICES, seed=0):
  """`canaries.report` of STEPS steps; the update is read by plain gradient descent."""
  optimizer = optax.sgd(EXPECTED / CLIP_NORM)
  mesh, step = build(fault, optimizer, devices)
  included = canaries.coins(CANARIES, seed)
  secret = secret_key.new_noise_key(seed)
  here = np.flatnonzero(included) + PATIENTS
  draws = (np.append(np.arange(PATIENTS), here), np.arange(PATIENTS))

  def take_step(current, number):
    drawn = chunks(everyone, draws[number % 2], mesh)
    return step(current, {}, drawn, KEY, secret)

  _, updates = canaries.trace(take_step, start(optimizer, mesh), STEPS)
  return canaries.report(updates, included, SIGMA, DELTA, 0.99)


def influence(fault, everyone, patient, among):
  """How far a patient moves the update, in units of C, under the same noise."""
  optimizer = optax.sgd(EXPECTED / CLIP_NORM)
  mesh, step = build(fault, optimizer)
  secret = secret_key.new_noise_key(1)

  def moved(drawn):
    current = start(optimizer, mesh)
    return step(current, {}, chunks(everyone, drawn, mesh), KEY, secret).trained

  with_, without = moved(among), moved([p for p in among if p != patient])
  parts = jax.tree.map(lambda a, b: float(np.sum((a - b) ** 2)), with_, without)
  return np.sqrt(sum(parts.values()))


def largest_influence(fault, everyone):
  """Of the patient that padding repeats, and of another one."""
  crowd = [0, 1, 2]
  return max(influence(fault, everyone, patient, crowd) for patient in (0, 2))


# The correct step


def test_without_a_fault_the_broken_steps_model_is_the_step_that_trains(everyone):
  results = []
  for fault in ('real', None):
    optimizer = optax.sgd(EXPECTED / CLIP_NORM)
    mesh, step = build(fault, optimizer)
    current = start(optimizer, mesh)
    for drawn in ([0, 4, 15, 70], [], range(40)):
      batch = chunks(everyone, np.asarray(drawn, int), mesh)
      current = step(current, {}, batch, KEY, secret_key.new_noise_key(3))
    results.append(current)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
  jax.tree.map(close, *results)


def test_the_step_that_trains_passes_the_audit_and_the_bound_is_near_its_claim(
  everyone,
):
  for seed in range(3):
    found = audited('real', everyone, seed=seed)
    assert found['epsilon_low'] <= found['epsilon_claimed']
    assert found['gaussian'] > 0.5 * found['epsilon_claimed']
    assert found['noise']['low'] <= SIGMA <= found['noise']['high']
  assert found['one_run'] > 0


def test_no_patient_moves_the_step_that_trains_by_more_than_the_clip_norm(everyone):
  assert 0.99 < largest_influence('real', everyone) <= 1 + 1e-3


# The broken ones


@pytest.mark.parametrize(
  'fault', ['noise halved', 'noise of devices averaged', 'noise of one step']
)
def test_too_little_noise_is_shown_to_exceed_the_claim(everyone, fault):
  found = audited(fault, everyone)
  assert found['epsilon_low'] > found['epsilon_claimed']


def test_noise_that_comes_back_at_every_step_is_caught_by_guessing_alone(everyone):
  """The bound that assumes nothing sees it too: every guess is right."""
  found = audited('noise of one step', everyone)
  assert found['one_run'] > found['epsilon_claimed']


def test_noise_of_every_device_is_found_by_its_size(everyone):
  """Four times the variance: nobody is hurt, but the claim is not what runs."""
  noise = audited('noise of every device', everyone)['noise']
  assert noise['low'] > SIGMA
  assert noise['value'] == pytest.approx(2 * SIGMA, rel=0.05)


@pytest.mark.parametrize(
  'fault', ['padded rows leak', 'per volume', 'clipped after averaging']
)
def test_an_influence_above_the_clip_norm_is_found(everyone, fault):
  assert largest_influence(fault, everyone) > 1.19


def test_noise_that_comes_back_is_found_without_any_canary(everyone):
  """On zero gradients two steps of the real mechanism share no noise."""
  for fault, repeats in (('real', False), ('noise of one step', True)):
    optimizer = optax.sgd(1.0)
    mesh, step = build(fault, optimizer)
    run = lambda state, _, step=step: step(
      state, {}, (), KEY, secret_key.new_noise_key(2)
    )
    _, updates = canaries.trace(run, start(optimizer, mesh), 4)
    correlations = np.corrcoef(updates) - np.eye(4)
    assert (np.max(np.abs(correlations)) > 0.5) == repeats
    if not repeats:
      assert np.max(np.abs(correlations)) < 5 / np.sqrt(CANARIES)
