"""Arguments, files and overrides of configs: what is accepted, what is explained."""

import json

import pytest

from ldm_jax.config import parsing
from ldm_jax.config.defaults import defaults


def test_an_argument_names_one_preset_and_typed_options():
  args = parsing.parse_arg(
    'small,depth=3,name=a b', ('tiny', 'small'), depth=1, name=''
  )
  assert (args.preset, args.depth, args.name) == ('small', 3, 'a b')


@pytest.mark.parametrize('arg', ['', None, ','])
def test_no_argument_is_the_last_preset_with_the_defaults(arg):
  args = parsing.parse_arg(arg, ('tiny', 'full'), root='here')
  assert (args.preset, args.root) == ('full', 'here')


@pytest.mark.parametrize(
  ('arg', 'message'),
  [
    ('tin', 'Did you mean tiny'),
    ('rot=x', 'Did you mean root='),
    ('quantum', 'This config takes: tiny, full, root=..., depth=...'),
    ('tiny=1', 'is not known'),
    ('depth=deep', "config argument depth got 'deep'"),
    ('depth=1.5', 'int'),
  ],
)
def test_a_bad_argument_is_explained(arg, message):
  with pytest.raises(ValueError) as error:
    parsing.parse_arg(arg, ('tiny', 'full'), root='', depth=1)
  assert message in str(error.value)


def test_a_value_may_hold_equals_signs_and_colons():
  args = parsing.parse_arg('root=C:/a=b', ('tiny',), root='')
  assert args.root == 'C:/a=b'


def test_load_hands_the_text_after_the_first_colon_to_get_config(tmp_path):
  (tmp_path / 'c.py').write_text('def get_config(arg=""):\n  return arg\n')
  assert parsing.load(f'{tmp_path}/c.py:tiny,at=1:2') == 'tiny,at=1:2'
  assert parsing.load(f'{tmp_path}/c.py') == ''


def test_load_names_a_missing_file_and_a_file_without_get_config(tmp_path):
  with pytest.raises(ValueError, match='no config file'):
    parsing.load(f'{tmp_path}/none.py:tiny')
  (tmp_path / 'c.py').touch()
  with pytest.raises(ValueError, match='get_config'):
    parsing.load(f'{tmp_path}/c.py')


@pytest.mark.parametrize(
  ('key', 'text', 'value'),
  [
    ('seed', '3', 3),
    ('adapt.privacy.epsilon', '3', 3.0),
    ('adapt.privacy.epsilon', '1e-1', 0.1),
    ('adapt.privacy.log_internal', 'true', True),
    ('adapt.privacy.seed', '7', 7),
    ('adapt.privacy', 'None', None),
    ('adapt.method', 'attention', 'attention'),
    ('name', '2024', '2024'),
    ('autoencoder.model.channels', '(8, 16)', (8, 16)),
    ('autoencoder.model.channels', '[8, 16]', (8, 16)),
    ('autoencoder.model.kernels', '((1,3,3),(3,3,3))', ((1, 3, 3), (3, 3, 3))),
    ('counterfactual.set.AGE', '+10', '+10'),
    ('adapt.drift.value', '0.1', 0.1),
    ('adapt.drift.value', 0, 0.0),
    ('adapt.drift.value', '(0.1, -0.2)', (0.1, -0.2)),
  ],
)
def test_an_override_takes_the_type_of_the_default(key, text, value):
  config = parsing.override(defaults(), {key: text})
  *parents, leaf = key.split('.')
  for parent in parents:
    config = config[parent]
  assert config[leaf] == value
  assert value is None or type(config[leaf]) is type(value)


@pytest.mark.parametrize(
  ('key', 'suggestion'),
  [
    ('adapt.privacy.epsilom', 'adapt.privacy.epsilon'),
    ('adapt.step', 'adapt.steps'),
    ('adpat.method', 'adapt.method'),
    ('sede', 'seed'),
  ],
)
def test_a_misspelt_key_gets_a_suggestion(key, suggestion):
  with pytest.raises(ValueError) as error:
    parsing.override(defaults(), {key: '1'})
  assert suggestion in str(error.value) and repr(key) in str(error.value)


@pytest.mark.parametrize(
  'key', ['seed.x', 'adapt.privacy.epsilon.x', '', '.', 'adapt.']
)
def test_a_key_that_cannot_exist_is_refused(key):
  with pytest.raises(ValueError, match='no key'):
    parsing.override(defaults(), {key: '1'})


@pytest.mark.parametrize(
  ('key', 'text'),
  [
    ('seed', '1.5'),
    ('seed', 'True'),
    ('seed', 'one'),
    ('adapt.privacy.log_internal', '1'),
    ('adapt.learning_rate', 'fast'),
    ('autoencoder.model.channels', '8'),
    ('adapt.privacy', '3'),
  ],
)
def test_a_value_of_another_type_is_refused(key, text):
  with pytest.raises(ValueError, match=key):
    parsing.override(defaults(), {key: text})


@pytest.mark.parametrize(('value', 'told'), [('0.1', '0.1'), (0.1, '0.1'), (None, '0')])
def test_a_drift_given_as_a_number_is_told_where_the_number_went(value, told):
  with pytest.raises(ValueError, match=rf'--config\.adapt\.drift\.value={told}'):
    parsing.override(defaults(), {'adapt.drift': value})


def test_the_digest_sees_every_value_and_only_values():
  plain = parsing.to_plain(defaults())
  assert parsing.digest(plain) == parsing.digest(json.loads(json.dumps(plain)))
  for key, value in (('adapt.privacy.delta', '1e-6'), ('sample.eta', '0.5')):
    other = parsing.to_plain(parsing.override(defaults(), {key: value}))
    assert parsing.digest(other) != parsing.digest(plain)


def test_one_decay_stands_for_a_series_of_one():
  config = parsing.override(defaults(), {'adapt.ema_decay': '0.5'})
  assert config.adapt.ema_decay == (0.5,)
  config = parsing.override(config, {'adapt.ema_decay': '(0.5, 0.9)'})
  assert config.adapt.ema_decay == (0.5, 0.9)
