"""Every config file with every preset: it builds, it passes the checks, it explains."""

import importlib.util
import pathlib
import tempfile

import pytest
from ml_collections import ConfigDict

from ldm_jax.config import checks, parsing
from ldm_jax.config.defaults import defaults
from ldm_jax.data import cohorts_of_config

FILES = sorted(
  (pathlib.Path(__file__).resolve().parent.parent / 'configs').glob('*.py')
)
PRESETS = ('tiny', 'small', 'full')
# Arguments without which a config has no data; further arguments that change its data.
PLACE = tempfile.TemporaryDirectory()  # a folder's patients are counted
for _name in [f'P{number}.nii' for number in range(8)]:
  (pathlib.Path(PLACE.name) / _name).touch()
for _table in ('participants.csv', 't.csv'):
  (pathlib.Path(PLACE.name) / _table).write_text(
    'id,age,sex,seg\n' + ''.join(f'P{number},50,F,\n' for number in range(8))
  )
NEEDED = {
  'folder': f'root={PLACE.name},split=demo,attributes=age:20:90;sex:F|M',
  'hippocampus': 'root=/scans',
}
MORE = {
  'hippocampus': ('autoencoder=adversarial',),
  'brain': (
    'data=ixi,root=/scans',
    'data=oasis,root=/scans',
    'autoencoder=vq',
    'autoencoder=wavelet,visits=4',
  ),
  'cardiac': (
    *(f'data={data},root=/scans' for data in ('scd', 'acdc', 'mnms', 'ukbb')),
    *('autoencoder=vq', 'autoencoder=adversarial'),
  ),
  'chest': ('data=chexpert,root=/scans', 'autoencoder=adversarial'),
  'folder': (
    'table=t.csv,subject=id,image={id}.nii,label=seg,labels=0|3,spacing=-x1x1',
  ),
}
CASES = [
  pytest.param(file, arg, id=f'{file.stem}:{arg.replace(PLACE.name, "/scans")}')
  for file in FILES
  for preset in ('', *PRESETS)
  for more in ('', *MORE.get(file.stem, ()))
  for arg in [','.join(filter(None, (preset, NEEDED.get(file.stem), more)))]
]

each_file = pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
each_case = pytest.mark.parametrize(('file', 'arg'), CASES)


def load(file, arg=''):
  return parsing.load(f'{file}:{arg}')


@each_case
def test_a_preset_builds_and_passes_the_checks(file, arg):
  config = checks.check(load(file, arg))
  assert config.name
  parsing.digest(parsing.to_plain(config))


@each_case
def test_a_config_has_exactly_the_keys_of_the_defaults(file, arg):
  free = (
    'counterfactual.set.',
    *(f'data.{name}.options.' for name in cohorts_of_config.NAMES),
  )

  def keys(config):
    return {key for key in parsing.flatten(config) if not key.startswith(free)}

  assert keys(load(file, arg)) == keys(defaults())


@each_case
def test_a_config_keeps_the_types_of_the_defaults(file, arg):
  known = parsing.flatten(defaults())
  for key, value in parsing.flatten(load(file, arg)).items():
    default = known.get(key)
    if default is not None and value is not None:
      same = isinstance(value, type(default))
      assert same or (type(default) is float and type(value) is int), key


@each_case
def test_kernels_and_strides_belong_to_the_levels(file, arg):
  config = load(file, arg)
  for model in (
    config.autoencoder.model,
    config.diffusion.model,
    config.evaluate.segmenter,
  ):
    if model.get('kind') == 'wavelet':  # it has strides alone
      continue
    levels = len(model.channels)
    assert len(model.kernels) == levels and len(model.strides) == levels - 1
    assert all(channels % model.norm_groups == 0 for channels in model.channels)
  assert len(config.diffusion.model.attention_levels) == len(
    config.diffusion.model.channels
  )


@each_case
def test_the_autoencoder_gives_back_the_shape_it_was_given(file, arg):
  config = load(file, arg)
  for axis, size in enumerate(config.data.preprocess.shape):
    for stride in config.autoencoder.model.strides:
      assert size % stride[axis] == 0, f'axis {axis} of size {size}'
      size //= stride[axis]


@each_case
def test_noise_is_predictable_only_where_the_preset_is_tiny(file, arg):
  config = load(file, arg)
  assert config.adapt.privacy is not None
  assert config.adapt.privacy.seed is None or 'tiny' in arg


@each_file
@pytest.mark.parametrize(
  ('arg', 'suggestion'), [('tinny', 'tiny'), ('fulll', 'full'), ('smal', 'small')]
)
def test_a_misspelt_preset_gets_a_suggestion(file, arg, suggestion):
  with pytest.raises(ValueError, match=f'Did you mean {suggestion}'):
    load(file, arg)


@each_file
def test_an_unknown_argument_is_named_with_those_there_are(file):
  with pytest.raises(ValueError, match=r"'colour=red' is not known.*takes: tiny"):
    load(file, 'tiny,colour=red')


@pytest.mark.parametrize('name', sorted(NEEDED))
def test_a_config_without_its_data_says_how_to_name_them(name):
  file = next(file for file in FILES if file.stem == name)
  with pytest.raises(ValueError, match='root='):
    load(file, 'tiny')


@each_file
def test_a_docstring_shows_a_command(file):
  spec = importlib.util.spec_from_file_location(file.stem, file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  assert '--config=' in module.__doc__ or 'launch/local.sh' in module.__doc__
  assert module.get_config.__doc__


@each_file
def test_the_arms_of_a_sweep_fit_the_config_and_differ(file):
  spec = importlib.util.spec_from_file_location(file.stem, file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'sweep'):
    pytest.skip('no sweep')
  groups = module.sweep()
  for group in groups.values() if isinstance(groups, dict) else [groups]:
    arms = list(group.values()) if isinstance(group, dict) else group
    assert len({str(sorted(arm.items())) for arm in arms}) == len(arms) > 1
    for arm in arms:
      config = load(file, NEEDED.get(file.stem, ''))
      assert isinstance(checks.check(parsing.override(config, arm)), ConfigDict)


def test_the_tiny_phantom_is_the_default_of_the_launch_script():
  config = load(next(f for f in FILES if f.stem == 'cardiac'), 'tiny')
  layouts = {config.data[name].layout for name in ('public', 'private', 'test')}
  assert layouts == {'phantom_cardiac'}


def test_private_and_public_phantoms_are_drawn_from_different_seeds():
  config = load(next(f for f in FILES if f.stem == 'cardiac'), 'tiny')
  names = ('public', 'private', 'test')
  assert len({config.data[name].options.seed for name in names}) == 3
