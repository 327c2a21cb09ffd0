"""Laws of loss weights and of the densities of times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldm_jax.diffusion import process, schedules, weighting

SCHEDULE = schedules.schedule('linear', 150, 1e-4, 7e-2)
FLOW = schedules.schedule('flow', 150)
TIMES = np.array([0, 20, 75, 148])
PIECES = ((0.0, 0.1, 0.3), (0.1, 0.8, 0.6), (0.8, 1.0, 0.1))
DENSITIES = {
  'uniform': {},
  'logit_normal': {'mean': -0.5, 'std': 0.8},
  'beta': {'shape': (2.0, 1.0)},
  'piecewise': {'pieces': PIECES},
  'private': {},
}


@pytest.mark.parametrize('gamma', [0.5, 5.0, 1e9])
@pytest.mark.parametrize('schedule', [SCHEDULE, FLOW], ids=['alpha_bar', 'flow'])
def test_one_network_has_one_min_snr_loss_whatever_it_predicts(schedule, gamma):
  key = jax.random.key(0)
  z_0, eps, error = jax.random.normal(key, (3, 4, 2, 5))
  level_t = schedule.at(TIMES)
  signal, noise = process.signal_and_noise(level_t, z_0)
  z_t = process.add_noise(z_0, eps, level_t)
  # The same mistake, said in each prediction: z_0_hat is off, eps_hat follows z_t.
  z_0_hat = z_0 + 0.1 * error
  eps_hat = process.to_epsilon(z_0_hat, z_t, level_t, 'sample')
  snr = (signal / noise)[:, :1, 0].ravel() ** 2
  expected = np.minimum(snr, gamma) * np.square(z_0_hat - z_0).mean((1, 2))
  for prediction in process.PREDICTIONS:
    if prediction == 'v' and schedule is FLOW:
      continue
    target = process.training_target(z_0, eps, level_t, prediction)
    output = process.training_target(z_0_hat, eps_hat, level_t, prediction)
    loss = np.square(output - target).mean((1, 2))
    loss = loss * weighting.min_snr(level_t, prediction, gamma)
    np.testing.assert_allclose(loss, expected, rtol=2e-2)


def test_min_snr_weights_are_those_of_the_paper():
  a_t = SCHEDULE.at(TIMES)
  snr = a_t / (1 - a_t)
  cut = np.minimum(snr, 5)
  weigh = lambda prediction: weighting.min_snr(a_t, prediction, 5.0)
  np.testing.assert_allclose(weigh('sample'), cut, rtol=1e-4)
  np.testing.assert_allclose(weigh('epsilon'), cut / snr, rtol=1e-4)
  np.testing.assert_allclose(weigh('v'), cut / (snr + 1), rtol=1e-4)


@pytest.mark.parametrize('prediction', process.PREDICTIONS)
def test_weights_stay_finite_where_no_signal_is_left(prediction):
  for level in (jnp.zeros(()), FLOW.at(149)):
    weight = weighting.min_snr(level, prediction, 5.0)
    assert weight == (1 if prediction == 'epsilon' else 0)


@pytest.mark.parametrize('name', DENSITIES)
def test_drawn_times_have_the_density_they_were_asked_for(name):
  probabilities = weighting.density(name, 20, **DENSITIES[name])
  assert probabilities.shape == (20,) and probabilities.sum() == pytest.approx(1)
  keys = jax.random.split(jax.random.key(0), 20_000)
  t = jax.jit(jax.vmap(lambda key: weighting.draw_time(key, probabilities)))(keys)
  counts = np.bincount(t, minlength=20)
  spread = np.sqrt(20_000 * probabilities * (1 - probabilities))
  assert t.dtype == jnp.int32 and len(counts) == 20
  assert np.all(np.abs(counts - 20_000 * probabilities) <= 4.5 * spread + 1)


def test_densities_are_those_they_are_called_after():
  x = (np.arange(1000) + 0.5) / 1000
  found = weighting.density('beta', 1000, shape=(3.0, 1.0)) * 1000
  np.testing.assert_allclose(found, 3 * x**2, atol=1e-5)
  found = weighting.density('logit_normal', 1000, mean=0.3, std=0.9) * 1000
  normal = stats.norm(0.3, 0.9).pdf(np.log(x / (1 - x))) / (x * (1 - x))
  np.testing.assert_allclose(found, normal, rtol=1e-2, atol=1e-4)
  found = weighting.density('piecewise', 10, pieces=PIECES)
  np.testing.assert_allclose(found, [0.3, *[0.6 / 7] * 7, 0.05, 0.05])
  np.testing.assert_allclose(weighting.density('uniform', 8), 1 / 8)


def test_private_training_draws_few_of_the_nearly_clean_and_nearly_lost_times():
  found = weighting.density('private', 1000)
  shares = [found[:30].sum(), found[30:800].sum(), found[800:].sum()]
  np.testing.assert_allclose(shares, [0.05, 0.9, 0.05])


def test_a_time_of_probability_zero_is_never_drawn():
  probabilities = weighting.density('piecewise', 10, pieces=((0.3, 0.6, 1.0),))
  keys = jax.random.split(jax.random.key(1), 5000)
  t = jax.vmap(lambda key: weighting.draw_time(key, probabilities))(keys)
  assert set(np.asarray(t).tolist()) == {3, 4, 5}


@pytest.mark.parametrize(
  'name, options, words',
  [
    ('cosine', {}, 'times.density'),
    ('logit_normal', {'std': 0.0}, 'logit_std'),
    ('beta', {'shape': (0.0, 1.0)}, 'times.beta'),
    ('beta', {'shape': (1.0,)}, 'times.beta'),
    ('piecewise', {}, 'times.pieces'),
    ('piecewise', {'pieces': ((0.0, 1.0, 0.5),)}, 'sum to 1'),
    ('piecewise', {'pieces': ((0.5, 0.2, 1.0),)}, 'from < to'),
    ('piecewise', {'pieces': (0.5, 0.2, 1.0)}, 'triples'),
  ],
)
def test_an_impossible_density_is_refused_by_its_key(name, options, words):
  with pytest.raises(ValueError, match=words):
    weighting.density(name, 10, **options)
