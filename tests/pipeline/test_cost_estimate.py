"""Laws of the estimates: counts are exact, and the rest follows its formula."""

import jax
import numpy as np
import pytest

from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA as SCHEMA
from ldm_jax.pipeline import cost_estimate
from ldm_jax.privacy import budget
from ldm_jax.training import networks
from tests import micro

NUM = {'public': 40, 'private': 30}


@pytest.fixture(scope='module')
def config():
  return micro.get_config()


@pytest.fixture(scope='module')
def traced(config):
  return cost_estimate._autoencoder(config), cost_estimate._denoiser(config, SCHEMA)


@pytest.fixture
def planned(config, traced, monkeypatch):
  """`cost_estimate.plan` of networks that are traced once for all tests."""
  monkeypatch.setattr(cost_estimate, '_autoencoder', lambda config: traced[0])
  monkeypatch.setattr(cost_estimate, '_denoiser', lambda config, schema: traced[1])

  def plan(config=config, speed=1e9, **patients):
    patients = patients or NUM
    scans = {name: 2 * number for name, number in patients.items()}
    return cost_estimate.plan(config, SCHEMA, patients, scans, speed)

  return plan


def stage(plan, name):
  (entry,) = (entry for entry in plan['stages'] if entry['stage'] == name)
  return entry


def methods(traced, config):
  return cost_estimate.methods(traced[1]['shapes'], config.adapt)


def test_parameters_are_those_of_the_network_that_will_be_trained(config, traced):
  module = networks.denoiser(config, SCHEMA)
  latent = jax.eval_shape(
    lambda x: networks.autoencoder(config.autoencoder).init_with_output(
      jax.random.key(0), x, method='encode'
    )[0][0],
    np.zeros((1, *config.data.preprocess.shape, 1), np.float32),
  )
  params = networks.initial_denoiser(
    module, jax.random.key(0), latent.shape[1:], len(SCHEMA)
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert traced[1]['parameters'] == count
  assert methods(traced, config)['full'] == count


def test_operations_and_kept_bytes_of_a_known_network_are_exact():
  forward = lambda params, x: jax.numpy.sin(x @ params['w'])
  shapes = {'w': jax.ShapeDtypeStruct((64, 32), np.float32)}
  cost = cost_estimate._cost(shapes, forward, [((64,), 'float32')])
  assert cost['parameters'] == 64 * 32
  assert 2 * 64 * 32 <= cost['forward'] <= 2 * 64 * 32 + 4 * 32
  assert cost['backward'] >= 2 * 2 * 64 * 32
  # What the gradient needs: the input, and the cosine of the product.
  assert cost['kept_bytes'] == 4 * (64 + 32)


def test_noise_over_signal_is_what_a_step_draws():
  sigma, clip_norm, batch, size = 1.7, 0.3, 24, 40_000
  noise = sigma * clip_norm * np.random.default_rng(0).normal(size=size) / batch
  aligned = clip_norm * batch / batch  # every patient's gradient the same, at the bound
  found = budget.noise_to_signal(sigma, size, batch)
  assert found == pytest.approx(np.linalg.norm(noise) / aligned, rel=0.02)


def test_a_smaller_epsilon_or_more_parameters_mean_more_noise_and_patients_less(
  config, traced
):
  trained = methods(traced, config)
  table = cost_estimate.noise_table(config, trained, 30)
  rows = {(r['method'], r['epsilon'], r['patients']): r for r in table}
  budgets = sorted({epsilon for _, epsilon, _ in rows})
  ratios = [rows['full', epsilon, 30]['per_step'] for epsilon in budgets]
  assert ratios == sorted(ratios, reverse=True)
  full, attention = rows['full', 1.0, 30], rows['attention', 1.0, 30]
  assert full['per_step'] > attention['per_step']
  larger = rows['full', 1.0, 300]
  assert larger['per_step'] == pytest.approx(full['per_step'] / 10)
  assert larger['noise_multiplier'] == full['noise_multiplier']
  assert sum(row['configured'] for row in table) == 1


def test_time_is_work_over_speed_and_memory_grows_with_the_batch(config, planned):
  public = {'public': 40}
  plans = [planned(speed=speed, **public) for speed in (1e9, 2e9)]
  once, twice = (stage(plan, 'diffusion') for plan in plans)
  assert once['seconds'] == pytest.approx(2 * twice['seconds']) and once['seconds'] > 0
  wide = config.copy_and_resolve_references()
  wide.diffusion.batch_size *= 8
  grown = stage(planned(wide, **public), 'diffusion')
  assert grown['memory_bytes'] > 2 * once['memory_bytes']
  assert not plans[0]['noise'], 'nobody is private'


def test_a_budget_that_cannot_be_is_a_finding_and_the_rest_is_estimated(planned):
  few = planned(private=2)
  assert not few['noise'] and 'adapt.privacy.batch_size' in few['faults'][0]
  assert stage(few, 'diffusion')['seconds'] > 0


def test_the_machine_computes_something():
  assert cost_estimate.machine_speed(seconds=0.01) > 1e6
