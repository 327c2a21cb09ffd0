"""Laws of `doctor.topology`: what is compiled is what trains; memory, time, verdict."""

import importlib.util
import json
import subprocess

import jax
import pytest

from ldm_jax.config import parsing
from ldm_jax.data import cohorts_of_config
from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA as SCHEMA
from ldm_jax.pipeline import ahead_of_time, slices, step_programs
from ldm_jax.training.mesh import make_mesh
from tests import micro


@pytest.fixture(scope='module')
def config():
  config = micro.get_config()
  config.diffusion.batch_size = 6  # four devices do not divide it
  config.adapt.privacy.batch_size = 5
  return config


@pytest.fixture(scope='module')
def found(config):
  """The steps on four GPUs, compiled in this process, which has four devices."""
  request = {
    'topology': 'h100x4',
    'config': json.loads(json.dumps(parsing.to_plain(config))),
    'schema': SCHEMA.to_config(),
    'patients': 6,
    'volumes': 2,
  }
  return ahead_of_time.answer(request)


def test_both_steps_of_a_small_config_fit_a_large_gpu(found):
  assert set(found['steps']) == {'plain', 'private'} and not found['compiled']
  for step in found['steps'].values():
    assert step['fits'] and 0 < step['bytes'] < found['memory_bytes'] / 100
    assert 0 < step['seconds'] < 1 and step['operations'] > 1e6


def test_gradients_are_summed_over_the_devices_once_a_program(found, config):
  steps = found['steps']
  trained, _, _ = step_programs.parameters(config, SCHEMA)
  size = 4 * sum(leaf.size for leaf in trained.values())
  # Two chunks of four patients, for five that are expected.
  names = [(each['name'], each['times']) for each in steps['private']['programs']]
  assert names == [('sum of a chunk', 2), ('noise', 1), ('update', 1)]
  reduced = steps['private']['collectives']['all-reduce']['bytes']
  assert reduced == pytest.approx(2 * size, rel=0.1)
  even, _ = ahead_of_time.divisible(config, 4)
  (plain,) = step_programs.plain(even, SCHEMA, make_mesh(4))
  size = 4 * sum(leaf.size for leaf in plain.arguments[0].trained.values())  # packed
  reduced = steps['plain']['collectives']['all-reduce']['bytes']
  assert reduced == pytest.approx(size, rel=0.1)


def test_batches_that_the_devices_do_not_divide_are_rounded_and_told(found):
  (note,) = found['notes']
  assert 'diffusion.batch_size=6' in note and 'computed with 8' in note


def test_time_is_that_of_the_slower_part_and_of_the_messages():
  wanted = slices.parse('h100x8')
  chip = wanted.chip
  program = {
    'name': 'p',
    'times': 3,
    'operations': 2 * chip.float32,
    'traffic_bytes': chip.bandwidth,
    'sent_bytes': 0.5 * wanted.link,
    'collectives': {},
    'bytes': 1.0,
  }
  step = ahead_of_time.summary([program], wanted, False)
  assert step['seconds'] == pytest.approx(3 * (2 + 0.5))
  assert step['bound'] == 'operations' and step['fits']
  rounded = ahead_of_time.summary([program], wanted, True)
  assert rounded['seconds'] < step['seconds'], 'products of bfloat16 are faster'
  large = ahead_of_time.summary([{**program, 'bytes': 1e12}], wanted, False)
  assert not large['fits']


def test_the_process_gets_as_many_virtual_devices_as_there_are_gpus(
  config, monkeypatch
):
  seen = {}

  def run(command, **options):
    seen.update(options, command=command)
    return subprocess.CompletedProcess(command, 0, 'noise\n{"steps": {}}\n', '')

  monkeypatch.setattr(subprocess, 'run', run)
  monkeypatch.setenv('XLA_FLAGS', '--xla_force_host_platform_device_count=4 --x=1')
  config.doctor.topology = 'h100x16'
  cohorts = cohorts_of_config.cohorts(config.data)
  assert ahead_of_time.examine(config, cohorts) == {'steps': {}}
  flags = seen['env']['XLA_FLAGS'].split()
  assert flags == ['--x=1', '--xla_force_host_platform_device_count=16']
  request = json.loads(seen['input'])
  assert request['patients'] == 6 and request['volumes'] == 2


def test_a_process_that_fails_is_told_in_one_sentence(config, monkeypatch):
  failed = lambda command, **_: subprocess.CompletedProcess(command, 1, '', 'a\nboom\n')
  monkeypatch.setattr(subprocess, 'run', failed)
  config.doctor.topology = 'h100x16'
  cohorts = cohorts_of_config.cohorts(config.data)
  with pytest.raises(ValueError, match='boom'):
    ahead_of_time.examine(config, cohorts)


def test_without_libtpu_a_tpu_is_refused_with_the_way_to_get_it(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r'pip install .*tpu'):
    ahead_of_time.check('v5p-128')
  assert ahead_of_time.check('h100x8').num_devices == 8


@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed'
)
def test_a_tpu_slice_is_compiled_for_without_a_tpu(config):
  config.doctor.topology = 'v5e:2x2'
  cohorts = cohorts_of_config.cohorts(config.data)
  found = ahead_of_time.examine(config, cohorts)
  assert found['compiled'] and found['devices'] == 4
  assert all(step['fits'] for step in found['steps'].values())
  assert jax.default_backend() == 'cpu'
