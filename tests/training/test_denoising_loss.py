"""Laws of the denoising loss: what is zero, what is independent, what is averaged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.diffusion import schedules, solvers, weighting
from ldm_jax.diffusion.drift import Drift
from ldm_jax.diffusion.process import expand_like, to_epsilon, training_target
from ldm_jax.privacy.gradients import clipped_sum
from ldm_jax.training import denoising_loss

SCHEDULE = schedules.schedule('linear', 20, 1e-4, 0.2)
FLOW = schedules.schedule('flow', 20)
KEYS = jax.random.split(jax.random.key(0), 6)
RNG = np.random.default_rng(0)
Z_0 = RNG.normal(size=(6, 2, 4, 4, 3)).astype(np.float32)
ATTRIBUTES = RNG.normal(size=(6, 5)).astype(np.float32)


class Perfect:
  """Knows z_0, so that it can tell the noise in z_t exactly."""

  def __init__(self, prediction, schedule=SCHEDULE):
    self.prediction, self.schedule = prediction, schedule

  def apply(self, params, z_t, t, attributes, drop):
    del params, attributes, drop
    level_t = self.schedule.at(t)
    eps = to_epsilon(Z_0, z_t, level_t, 'sample')
    return training_target(Z_0, eps, level_t, self.prediction)


class Linear:
  """Mixes z_t, the time, the attributes and the drop, each example by itself."""

  def apply(self, params, z_t, t, attributes, drop):
    w = params['params']['w']
    code = jnp.where(drop[:, None], 0.0, attributes) @ w + 0.01 * t
    return 0.5 * z_t + expand_like(code, z_t)


class Watching(Linear):
  """Remembers the times and drops it was given."""

  def __init__(self):
    self.seen = []

  def apply(self, params, z_t, t, attributes, drop):
    self.seen.append((t, drop))
    return super().apply(params, z_t, t, attributes, drop)


PARAMS = {'w': jnp.linspace(-1.0, 1.0, 5)}


def losses(
  module=None,
  prediction='v',
  drop_probability=0.3,
  drift=None,
  schedule=SCHEDULE,
  **options,
):
  found = denoising_loss.denoising_losses(
    module or Linear(), schedule, prediction, drop_probability, drift, **options
  )
  return found if isinstance(module, Watching) else jax.jit(found)


@pytest.mark.parametrize(
  'schedule, prediction',
  [(SCHEDULE, 'epsilon'), (SCHEDULE, 'v'), (FLOW, 'flow'), (FLOW, 'sample')],
)
@pytest.mark.parametrize('drift', [None, 0.4])
def test_the_loss_of_a_perfect_denoiser_is_zero(schedule, prediction, drift):
  module = Perfect(prediction, schedule)
  found = losses(module, prediction, drift=drift, schedule=schedule)
  np.testing.assert_allclose(found({}, Z_0, ATTRIBUTES, KEYS), 0.0, atol=1e-6)


@pytest.mark.parametrize('solver', solvers.SOLVERS)
def test_what_a_flow_learns_without_loss_is_what_its_solvers_return(solver):
  module = Perfect('flow', FLOW)
  z_T = solvers.initial_noise(KEYS, Z_0.shape)
  z_0 = solvers.sample(
    lambda z_t, t: module.apply({}, z_t, t, None, None),
    z_T,
    FLOW,
    5,
    KEYS,
    prediction='flow',
    solver=solver,
  )
  np.testing.assert_allclose(z_0, Z_0, atol=1e-4)


@pytest.mark.parametrize('zero', [0.0, Drift(np.zeros(3)), Drift(0, 'init_only')])
def test_zero_drift_is_no_drift_bit_for_bit_in_loss_and_gradient(zero):
  def found(drift):
    run = losses(drift=drift)
    total = lambda params: run(params, Z_0, ATTRIBUTES, KEYS).sum()
    return jax.value_and_grad(total)(PARAMS)

  jax.tree.map(np.testing.assert_array_equal, found(None), found(zero))


def test_drift_moves_the_noise_that_is_learned():
  plain = losses()(PARAMS, Z_0, ATTRIBUTES, KEYS)
  drifted = losses(drift=0.5)(PARAMS, Z_0, ATTRIBUTES, KEYS)
  assert not np.allclose(plain, drifted)


def test_random_offsets_are_drawn_from_the_key_of_each_example():
  found = losses(drift=Drift(0.0, random_std=0.5))
  whole = found(PARAMS, Z_0, ATTRIBUTES, KEYS)
  one = found(PARAMS, Z_0[2:3], ATTRIBUTES[2:3], KEYS[2:3])
  np.testing.assert_allclose(one[0], whole[2], rtol=1e-5)
  assert not np.allclose(whole, losses()(PARAMS, Z_0, ATTRIBUTES, KEYS))


def test_the_loss_of_an_example_does_not_depend_on_its_batch():
  whole = losses()(PARAMS, Z_0, ATTRIBUTES, KEYS)
  order = np.array([4, 1, 5])
  some = losses()(PARAMS, Z_0[order], ATTRIBUTES[order], KEYS[order])
  np.testing.assert_allclose(some, whole[order], rtol=1e-6)


def test_times_cover_the_schedule_and_drops_have_their_share():
  module = Watching()
  keys = jax.random.split(jax.random.key(1), 4000)
  z_0, attributes = np.zeros((4000, 1, 1, 1, 1), np.float32), np.zeros((4000, 5))
  losses(module)(PARAMS, z_0, attributes, keys)
  t, drop = map(np.asarray, module.seen[0])
  counts = np.bincount(t, minlength=20)
  assert len(counts) == 20
  assert counts.min() > 140 and counts.max() < 260  # 200 each, 4 deviations
  assert np.mean(drop) == pytest.approx(0.3, abs=0.03)
  assert abs(np.corrcoef(t, drop)[0, 1]) < 0.06


def test_weights_multiply_each_examples_loss_by_its_own_time():
  module = Watching()
  plain = losses(module)(PARAMS, Z_0, ATTRIBUTES, KEYS)
  weighted = losses(module, min_snr_gamma=2.0)(PARAMS, Z_0, ATTRIBUTES, KEYS)
  (t, _), (same, _) = module.seen
  np.testing.assert_array_equal(t, same)
  weight = weighting.min_snr(SCHEDULE.at(t), 'v', 2.0)
  np.testing.assert_allclose(weighted, plain * weight, rtol=1e-5)
  alone = losses(min_snr_gamma=2.0)(PARAMS, Z_0[2:3], ATTRIBUTES[2:3], KEYS[2:3])
  np.testing.assert_allclose(alone[0], weighted[2], rtol=1e-5)


def test_a_density_weighs_the_times_and_importance_takes_the_weight_away():
  # Losses that depend on nothing but the time: means over draws are known.
  times = weighting.density('beta', 20, shape=(2.0, 1.0))
  keys = jax.random.split(jax.random.key(5), 20_000)
  z_0, attributes = np.zeros((20_000, 1, 1, 1, 1), np.float32), np.zeros((20_000, 5))

  class Sees:
    def apply(self, params, z_t, t, attributes, drop):
      return expand_like(t.astype(jnp.float32), z_t) / 10 + z_t * 0

  mean = lambda **options: float(
    losses(Sees(), 'sample', **options)({}, z_0, attributes, keys).mean()
  )
  squares = np.square(np.arange(20) / 10)
  assert mean() == pytest.approx(squares.mean(), rel=0.03)
  assert mean(times=times) == pytest.approx(times @ squares, rel=0.03)
  corrected = mean(times=times, importance=True)
  assert corrected == pytest.approx(squares.mean(), rel=0.03)


def test_no_weight_lets_a_patient_move_the_clipped_sum_by_more_than_the_bound():
  # Weights of up to 1e4 and 1 / p(t) lie inside the loss, so clipping comes after them.
  times = weighting.density('beta', 20, shape=(3.0, 1.0))
  options = {'times': times, 'importance': True, 'min_snr_gamma': 1e9}
  loss = denoising_loss.patient_loss(losses(prediction='sample', **options), 1)
  per_patient = lambda trained, one, key: loss(trained, {}, one, key)
  patients = jax.tree.map(lambda leaf: jnp.stack([leaf, 50 * leaf]), example((1, 1)))
  for kept in ([True, False], [False, True]):
    total = clipped_sum(per_patient, PARAMS, patients, jnp.array(kept), KEYS[:2], 0.1)
    norm = float(jnp.linalg.norm(total['w']))
    assert 0.0997 < norm <= 0.1


def test_a_loss_that_cannot_be_is_refused_with_its_key():
  holes = weighting.density('piecewise', 20, pieces=((0.5, 1.0, 1.0),))
  with pytest.raises(ValueError, match=r'diffusion\.times\.importance'):
    losses(times=holes, importance=True)
  with pytest.raises(ValueError, match=r'diffusion\.prediction'):
    losses(schedule=FLOW, prediction='v')
  config = defaults()
  config.diffusion.min_snr_gamma = -1.0
  with pytest.raises(ValueError, match=r'diffusion\.min_snr_gamma'):
    denoising_loss.configured_losses(config, Linear(), SCHEDULE)


def test_the_default_config_draws_uniform_times_without_weights():
  config = defaults()
  plain = losses(drop_probability=config.diffusion.drop_probability)
  for adapting in (False, True):
    ours = denoising_loss.configured_losses(config, Linear(), SCHEDULE, 0.0, adapting)
    expected = plain(PARAMS, Z_0, ATTRIBUTES, KEYS)
    found = jax.jit(ours)(PARAMS, Z_0, ATTRIBUTES, KEYS)
    np.testing.assert_array_equal(found, expected)


def test_adaptation_may_draw_its_own_times():
  config, module = defaults(), Watching()
  config.adapt.times.density = 'piecewise'
  config.adapt.times.pieces = ((0.9, 1.0, 1.0),)
  for adapting in (False, True):
    ours = denoising_loss.configured_losses(config, module, SCHEDULE, 0.0, adapting)
    ours(PARAMS, Z_0, ATTRIBUTES, KEYS)
  public, private = (np.asarray(t) for t, _ in module.seen)
  assert private.min() >= 18 > public.min()


def example(present=(True, True)):
  return {
    'z': Z_0[:2],
    'attributes': ATTRIBUTES[:2],
    'present': jnp.asarray(present),
  }


def test_a_patients_loss_is_the_mean_over_volumes_and_draws():
  key = jax.random.key(3)
  loss = jax.jit(denoising_loss.patient_loss(losses(), noise_multiplicity=3))
  found = loss(PARAMS, {}, example(), key)
  repeated = [np.repeat(leaf[:2], 3, axis=0) for leaf in (Z_0, ATTRIBUTES)]
  each = losses()(PARAMS, *repeated, jax.random.split(key, 6))
  assert float(found) == pytest.approx(float(each.mean()), rel=1e-5)
  assert len(set(np.asarray(each).tolist())) == 6, 'every draw has its own noise'


def test_a_loss_that_draws_volumes_computes_with_as_many_whoever_has_most():
  """Arrays of another size would round every patient's gradient in another way."""
  sizes = []

  def watched(params, z, attributes, keys):
    sizes.append(len(z))
    return losses()(params, z, attributes, keys)

  loss = denoising_loss.patient_loss(watched, 2, num_examples=3)
  gradients = []
  for most in (2, 3, 5):
    mine = {
      'z': np.zeros((most, *Z_0.shape[1:]), np.float32),
      'attributes': np.full((most, ATTRIBUTES.shape[1]), np.nan, np.float32),
      'present': np.arange(most) < 2,
    }
    mine['z'][:2], mine['attributes'][:2] = Z_0[:2], ATTRIBUTES[:2]
    found = jax.jit(jax.grad(loss))(PARAMS, {}, mine, jax.random.key(3))
    gradients.append(jax.tree.leaves(found))
  assert set(sizes) == {6}
  for others in gradients[1:]:
    for one, other in zip(gradients[0], others, strict=True):
      np.testing.assert_array_equal(one, other)


def test_a_missing_volume_leaves_the_mean_over_the_others():
  key = jax.random.key(3)
  loss = jax.jit(denoising_loss.patient_loss(losses(), noise_multiplicity=1))
  first = losses()(PARAMS, Z_0[:2], ATTRIBUTES[:2], jax.random.split(key, 2))[0]
  assert float(loss(PARAMS, {}, example((True, False)), key)) == pytest.approx(
    float(first), rel=1e-5
  )
  nothing = loss(PARAMS, {}, example((False, False)), key)
  assert float(nothing) == 0.0


def first_number(params, z, conditions, keys):
  return z.reshape(len(z), -1)[:, 0]


def test_a_patients_loss_may_see_some_of_the_volumes_each_as_often():
  num, total = 1, 4
  each = jnp.arange(1.0, 1 + total)

  loss = denoising_loss.patient_loss(first_number, 1, num)
  patient = {
    'z': each[:, None],
    'attributes': jnp.zeros((total, 1)),
    'present': each < total,  # the last one is not the patient's
  }
  keys = jax.random.split(jax.random.key(0), 3000)
  found = jax.jit(jax.vmap(lambda key: loss(PARAMS, {}, patient, key)))(keys)
  values, counts = np.unique(found, return_counts=True)
  np.testing.assert_array_equal(values, [1, 2, 3])
  assert np.all(abs(counts - 1000) < 5 * np.sqrt(1000 * 2 / 3))


def test_more_examples_than_a_patient_has_are_all_of_them():
  for num in (2, 5):
    loss = denoising_loss.patient_loss(first_number, 2, num)
    patient = example((True, False))
    found = loss(PARAMS, {}, patient, jax.random.key(1))
    assert float(found) == pytest.approx(float(Z_0[0].ravel()[0]), rel=1e-6)


def test_the_losses_of_patients_are_those_of_each_patient():
  one = jax.jit(denoising_loss.patient_loss(losses(), noise_multiplicity=1))
  batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), example())
  keys = KEYS[:2]
  every = jax.jit(denoising_loss.patient_example_losses(one))
  found, metrics = every(PARAMS, {}, batch, keys, 0)
  assert metrics == {}
  for i in range(2):
    alone = one(PARAMS, {}, jax.tree.map(lambda leaf, i=i: leaf[i], batch), keys[i])
    assert float(found[i]) == pytest.approx(float(alone), rel=1e-5)


def test_frozen_and_trained_parameters_form_one_network():
  wrapped = denoising_loss.example_losses(losses())
  batch = {'z': Z_0, 'attributes': ATTRIBUTES}
  found, _ = wrapped({}, PARAMS, batch, KEYS, 0)
  np.testing.assert_array_equal(found, wrapped(PARAMS, {}, batch, KEYS, 0)[0])


def test_text_is_hidden_in_its_share_and_attributes_never():
  conditions = np.ones((4000, 5), np.float32)
  keys = jax.random.split(jax.random.key(0), 4000)
  hidden = np.isnan(
    jax.jit(denoising_loss.hide, static_argnums=1)(conditions, 2, 0.2, keys)
  )
  assert not hidden[:, :2].any()
  assert (hidden[:, 2:] == hidden[:, 2:3]).all()
  assert 0.17 < hidden[:, 2].mean() < 0.23
  never = jax.jit(denoising_loss.hide, static_argnums=1)(conditions, 2, 0.0, keys)
  np.testing.assert_array_equal(never, conditions)
