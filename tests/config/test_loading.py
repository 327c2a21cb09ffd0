"""Laws of config files: config.json gives back the config that it is of."""

import json
import pathlib

import pytest

from ldm_jax.config import checks, loading, parsing
from ldm_jax.workfolder import fingerprint

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPECS = ('tests/micro.py', 'configs/brain.py:tiny', 'configs/daum24.py:tiny')


def written(path, content):
  path.write_text(json.dumps(content))
  return str(path)


@pytest.mark.parametrize('spec', SPECS)
def test_a_config_that_was_kept_is_the_config(tmp_path, spec):
  flags = {'adapt.privacy.epsilon': '3', 'counterfactual.set.AGE': '+5'}
  config = parsing.override(loading.load(str(ROOT / spec)), flags)
  kept = loading.load(written(tmp_path / 'config.json', parsing.to_plain(config)))
  assert parsing.flatten(checks.check(kept)) == parsing.flatten(checks.check(config))
  types = lambda config: {k: type(v) for k, v in parsing.flatten(config).items()}
  assert types(kept) == types(config), 'a list is no tuple'
  for section in config:
    assert fingerprint(kept, (section,), {}) == fingerprint(config, (section,), {})


def test_no_privacy_stays_no_privacy_and_flags_apply(tmp_path):
  config = loading.load(str(ROOT / 'tests/micro.py'))
  config = parsing.override(config, {'adapt.privacy': 'None'})
  kept = loading.load(written(tmp_path / 'config.json', parsing.to_plain(config)))
  assert kept.adapt.privacy is None
  assert parsing.override(kept, {'adapt.steps': '9'}).adapt.steps == 9


def test_keys_that_are_missing_have_their_default_values(tmp_path):
  kept = loading.load(written(tmp_path / 'config.json', {'sample': {'num': 5}}))
  assert kept.sample.num == 5 and kept.run.log_every == 20


@pytest.mark.parametrize(
  ('content', 'argument', 'words'),
  [
    ({'sample': {'numm': 5}}, '', r'sample\.numm.*Did you mean sample\.num'),
    ([1, 2], '', 'not the config.json of a work folder'),
    ({'fingerprint': 'x'}, '', 'not the config.json of a work folder'),
    ({'sample': {'num': 5}}, ':tiny', 'takes no argument'),
  ],
)
def test_what_is_no_config_is_refused(tmp_path, content, argument, words):
  path = written(tmp_path / 'config.json', content)
  with pytest.raises(ValueError, match=words):
    loading.load(path + argument)


def test_a_file_that_was_cut_is_refused_by_name(tmp_path):
  (tmp_path / 'config.json').write_text('{"sample": ')
  with pytest.raises(ValueError, match=r'config\.json cannot be read as a config'):
    loading.load(str(tmp_path / 'config.json'))
