"""Laws of the default config."""

from ldm_jax.config import parsing
from ldm_jax.config.defaults import defaults


def test_every_call_returns_a_config_of_its_own():
  one, other = defaults(), defaults()
  one.adapt.privacy.epsilon = 1.0
  one.data.private.layout = 'folder'
  assert other.adapt.privacy.epsilon == 10.0 and other.data.private.layout == ''


def test_no_default_gives_away_private_scans_or_fixes_the_protecting_noise():
  config = defaults()
  assert config.adapt.privacy.seed is None and not config.adapt.privacy.log_internal
  assert config.sample.requests == 'uniform'
  assert config.adapt.privacy.releases.attributes.epsilon is None


def test_the_keys_are_those_of_the_sections_and_all_have_plain_values():
  for key, value in parsing.flatten(defaults()).items():
    assert isinstance(value, bool | int | float | str | tuple | type(None)), key
