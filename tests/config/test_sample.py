"""Laws of the section `sample`."""

import pytest

from ldm_jax.config import checks, loading, sample
from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override, to_plain


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'sample.text': 'file.npy'}, 'sample.text'),
    ({'sample.steps': '1001'}, 'sample.steps'),
    ({'sample.num': '0'}, 'sample.num'),
    ({'sample.within_patient.ESED': '1'}, 'sample.within_patient'),
    ({'sample.within_patient.ESED': '1|1'}, 'sample.within_patient'),
    (
      {'sample.within_patient.ESED': '1|0', 'sample.within_patient.AGE': '+0|+1|+2'},
      'sample.within_patient',
    ),
    ({'sample.within_patient.ESED': '1|0', 'sample.num': 5}, 'sample.num'),
    (
      {
        'sample.within_patient.ESED': '1|0',
        'diffusion.conditioner.by': ('embedding', 'mask'),
      },
      'sample.masks',
    ),
  ],
)
def test_an_invalid_value_is_refused_by_its_key(flags, key, refused):
  refused(flags, key)


def test_what_changes_within_a_patient_survives_the_file_of_a_config():
  config = override(defaults(), {'sample.within_patient.AGE': '+0|+2'})
  checks.check(config)
  kept = loading.from_plain(to_plain(config), 'config.json')
  assert sample.within_patient(kept) == {'AGE': ('+0', '+2')}
  assert sample.within_patient(defaults()) == {}
