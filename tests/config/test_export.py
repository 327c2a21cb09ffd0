"""Laws of the section `export`."""

import pytest

from ldm_jax.config import checks
from ldm_jax.config.parsing import override
from tests import micro


@pytest.mark.parametrize(
  ('key', 'value'), [('dtype', 'float16'), ('bids_suffix', '../T1w')]
)
def test_a_value_that_no_export_can_use_is_refused_by_name(key, value):
  config = override(micro.get_config(), {f'export.{key}': value})
  with pytest.raises(ValueError, match=f'config.export.{key}'):
    checks.check(config)
