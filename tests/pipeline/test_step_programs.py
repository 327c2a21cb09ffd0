"""Laws of the programs that are compiled ahead of time: they are those that train."""

import pytest

from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA as SCHEMA
from ldm_jax.pipeline import ahead_of_time, step_programs
from ldm_jax.training import state
from ldm_jax.training.mesh import make_mesh
from tests import micro


@pytest.fixture(scope='module')
def config():
  return micro.get_config()


def test_the_programs_are_those_of_the_stages_with_their_shapes(config):
  """The compiled update takes a state as training makes it."""
  mesh = make_mesh(1)
  program = step_programs.private(config, SCHEMA, 6, 2, mesh)[-1]
  trained, _, _ = step_programs.parameters(config, SCHEMA)
  begun = program.arguments[0]
  assert isinstance(begun, state.TrainState)
  assert {k: v.shape for k, v in begun.trained.items()} == {
    k: v.shape for k, v in trained.items()
  }
  assert program.arguments[1].keys() == trained.keys()


def test_devices_that_share_the_state_hold_less_of_it(config):
  config, _ = ahead_of_time.divisible(config, 4)
  whole, split = (
    step_programs.bytes_a_device(step_programs.plain(config, SCHEMA, mesh)[0].arguments)
    for mesh in (make_mesh(4, 1), make_mesh(1, 4))
  )
  assert split < 0.5 * whole
