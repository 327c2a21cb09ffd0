"""Laws of the arms that a config names."""

import pytest

from ldm_jax.commands.arms_of_config import read_arms

CONFIG = """
from ldm_jax.config.defaults import defaults

def get_config(arg=''):
  return defaults()

def sweep():
  return {arms}
"""
SCRATCH, PUBLIC = {'adapt.init': 'scratch'}, {'adapt.privacy': None}


@pytest.fixture
def config(tmp_path):
  def write(arms):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(arms=arms))
    return str(path)

  return write


def test_arms_of_a_list_are_named_by_what_they_change(config):
  arms = {'adapt.init=scratch': SCRATCH, 'adapt.privacy=None': PUBLIC}
  assert read_arms(config([SCRATCH, PUBLIC])) == arms


def test_a_group_and_a_pattern_choose_the_arms(config):
  spec = config({'g': [SCRATCH, PUBLIC], 'h': {'k': {'adapt.steps': 5}}})
  assert list(read_arms(spec)) == ['adapt.init=scratch', 'adapt.privacy=None']
  assert read_arms(spec, 'h') == {'k': {'adapt.steps': 5}}
  assert list(read_arms(spec, 'g', 'scratch')) == ['adapt.init=scratch']
  with pytest.raises(ValueError, match='no group'):
    read_arms(spec, 'i')
  with pytest.raises(ValueError, match='no arm'):
    read_arms(spec, 'g', 'nothing')


def test_an_arm_that_does_not_fit_the_config_is_found_at_once(config):
  with pytest.raises(ValueError, match=r'adapt\.stepps'):
    read_arms(config([{'adapt.stepps': 5}]))
