"""What tests of the config share: a check that refuses, by name."""

import pytest

from ldm_jax.config import checks, parsing
from ldm_jax.config.defaults import defaults


@pytest.fixture
def refused():
  """refused(flags, key): the message with which these overrides are refused."""

  def refuse(flags, key):
    config = parsing.override(defaults(), flags)
    with pytest.raises(ValueError, match=rf'config\.{key} is .*must be') as error:
      checks.check(config)
    return str(error.value)

  return refuse
