"""A config is data: default values, arguments of a config file, overrides, checks.

`configs/<name>.py` starts from `defaults()`, so that every key exists once, with its
reason, and a misspelt override is found. This module knows no other room.
"""

import ast
import difflib
import hashlib
import importlib.util
import itertools
import json
import math
import pathlib
import types

from ml_collections import ConfigDict, FrozenConfigDict

STAGES = (
  'prepare',
  'autoencoder',
  'encode',
  'diffusion',
  'adapt',
  'sample',
  'counterfactual',
  'evaluate',
  'report',
)
METHODS = ('full', 'attention')
# How attributes reach the denoiser, any of them together.
WAYS = ('attention', 'embedding', 'channels')
CHOICES = {
  'diffusion.schedule.name': ('linear', 'scaled_linear', 'sigmoid', 'cosine', 'flow'),
  'diffusion.prediction': ('epsilon', 'v', 'sample', 'flow'),
  'diffusion.model.kind': ('unet', 'dit', 'daum24'),
  'diffusion.model.attention': ('volume', 'depth'),
  'diffusion.model.dtype': ('float32', 'bfloat16'),
  'adapt.method': METHODS,
  # From the public pre-training, or from random weights.
  'adapt.init': ('diffusion', 'scratch'),
  'sample.solver': ('ddim', 'ddpm', 'euler', 'heun', 'dpmpp_2m', 'unipc'),
  'sample.spacing': ('linspace', 'leading', 'trailing', 'monai'),
  'sample.model': ('adapt', 'diffusion'),
  'counterfactual.source': ('public', 'private', 'test'),
}
# Sections whose keys the user invents: attribute names to change.
OPEN_SECTIONS = ('counterfactual.set',)


def parse_arg(arg, presets, **options):
  """Reads the text after the colon of `--config=configs/cardiac.py:tiny,data=scd`.

  Args:
    arg: comma-separated words: one preset and `key=value` pairs; None or '' for none.
    presets: names of presets; the last one is used when none is given.
    **options: known keys with their default values, which give the type.

  Returns:
    A namespace with `preset` and every option.

  Raises:
    ValueError: for an unknown preset or key, or a value of the wrong type.
  """
  values = dict(options, preset=presets[-1])
  for word in filter(None, (arg or '').split(',')):
    key, equals, text = word.partition('=')
    if not equals and word in presets:
      values['preset'] = word
    elif equals and key in options:
      values[key] = _convert(text, options[key], f'config argument {key}')
    else:
      known = [*presets, *(f'{name}=...' for name in options)]
      raise ValueError(
        f'The config argument {word!r} is not known.{_suggest(word, known)} '
        f'This config takes: {", ".join(known)}.'
      )
  return types.SimpleNamespace(**values)


def product(**axes):
  """All combinations of overrides, for `sweep()`: {'adapt.method': [...]} -> list."""
  names = list(axes)
  return [
    dict(zip(names, values, strict=True))
    for values in itertools.product(*axes.values())
  ]


def load(spec):
  """Loads `path/to/config.py[:argument]` and returns its unlocked ConfigDict.

  Raises:
    ValueError: if the file does not exist or has no `get_config`.
  """
  path, _, arg = spec.partition(':')
  file = pathlib.Path(path)
  if not file.is_file():
    raise ValueError(
      f'There is no config file {path!r} (looked in {pathlib.Path.cwd()}). '
      'Give the path of a file like configs/cardiac.py in --config.'
    )
  module_spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  module = importlib.util.module_from_spec(module_spec)
  module_spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise ValueError(
      f'{path} has no function get_config(arg), which a config file must define; '
      'start from configs/folder.py.'
    )
  return module.get_config(arg)


def override(config, assignments):
  """Applies `{'adapt.privacy.epsilon': '3'}`, values as text or as Python values.

  Raises:
    ValueError: for a key that does not exist (the nearest ones are named) or a value
      of another type than the default's.
  """
  for key, value in assignments.items():
    *parents, leaf = key.split('.')
    section = config
    for parent in parents:
      section = section.get(parent) if isinstance(section, ConfigDict) else None
    is_open = '.'.join(parents) in OPEN_SECTIONS
    if not isinstance(section, ConfigDict) or (leaf not in section and not is_open):
      known = flatten(config)
      raise ValueError(
        f'The config has no key {key!r}.{_suggest(key, known)} '
        'Correct the flag --config.' + key + '.'
      )
    with section.unlocked(), section.ignore_type():
      if is_open:
        section[leaf] = str(value)
      else:
        section[leaf] = _convert(value, section[leaf], f'--config.{key}')
  return config


def flatten(config, prefix=''):
  """Nested config -> {'a.b': value}."""
  flat = {}
  for key in config:
    value = config[key]
    if isinstance(value, ConfigDict | FrozenConfigDict):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def to_plain(config):
  """ConfigDict -> JSON-able dict (tuples become lists)."""
  return json.loads(json.dumps(config.to_dict(), default=_plain))


def digest(plain):
  """sha256 of a JSON-able value, the same in every process."""
  return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def check(config):
  """Checks what needs no data.

  Raises:
    ValueError: naming the key, what came and what is required.
  """
  for key in (
    'autoencoder.steps',
    'autoencoder.batch_size',
    'diffusion.steps',
    'diffusion.batch_size',
    'adapt.steps',
    'adapt.batch_size',
    'sample.num',
    'sample.steps',
    'sample.batch_size',
    'evaluate.segmenter.steps',
    'evaluate.segmenter.batch_size',
    'run.log_every',
    'run.checkpoint_every',
  ):
    value = flatten(config)[key]
    _require(value > 0, key, value, 'a positive whole number')
  for key in ('autoencoder', 'diffusion', 'adapt', 'evaluate.segmenter'):
    value = flatten(config)[f'{key}.learning_rate']
    holds = value > 0 and math.isfinite(value)
    _require(holds, f'{key}.learning_rate', value, 'a positive number')
  for key, choices in CHOICES.items():
    value = flatten(config)[key]
    _require(value in choices, key, value, f'one of {", ".join(choices)}')
  ways = config.diffusion.conditioner.by
  key = 'diffusion.conditioner.by'
  _require(len(ways) and set(ways) <= set(WAYS), key, ways, f'some of {WAYS}')
  text = config.diffusion.text
  for key in ('num_tokens', 'width'):
    value = text[key]
    _require(value > 0, f'diffusion.text.{key}', value, 'a positive whole number')
  value = text.missing_probability
  key = 'diffusion.text.missing_probability'
  _require(0 <= value <= 1, key, value, 'a number from 0 to 1')
  key = 'sample.text'
  holds = text.files or not config.sample.text
  _require(holds, key, config.sample.text, "'' where diffusion.text.files is ''")
  timesteps = config.diffusion.schedule.num_timesteps
  for key in ('sample.steps', 'counterfactual.steps'):
    value = flatten(config)[key]
    _require(
      value <= timesteps,
      key,
      value,
      f'at most diffusion.schedule.num_timesteps = {timesteps}',
    )
  for key in ('shift', 'rotation_deg'):
    value = config.augment[key]
    holds = len(value) == 3 and min(value) >= 0
    _require(holds, f'augment.{key}', value, 'three numbers from 0 up: axes d, h and w')
  for key in ('copies', 'gamma'):
    value = config.augment[key]
    _require(value >= 0, f'augment.{key}', value, 'a number from 0 up')
  if config.adapt.privacy is not None:
    _check_privacy(config.adapt.privacy)
  return config


def _check_privacy(privacy):
  prefix = 'adapt.privacy'
  epsilon, delta = privacy.epsilon, privacy.delta
  _require(
    epsilon > 0 and math.isfinite(epsilon),
    f'{prefix}.epsilon',
    epsilon,
    'a positive finite number; for training without privacy set adapt.privacy=None',
  )
  _require(0 < delta < 1, f'{prefix}.delta', delta, 'a number between 0 and 1')
  names = ('clip_norm', 'batch_size', 'noise_multiplicity', 'chunk_size', 'microbatch')
  for key in names:
    _require(privacy[key] > 0, f'{prefix}.{key}', privacy[key], 'a positive number')


def _require(holds, key, value, required):
  if not holds:
    raise ValueError(
      f'config.{key} is {value!r}, but must be {required}. Set --config.{key}=...'
    )


def _convert(value, default, name):
  """Text -> a value of the default's type; None is allowed for None and sections."""
  if isinstance(value, str) and not isinstance(default, str):
    try:
      value = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      if value.lower() in ('true', 'false'):
        value = value.lower() == 'true'
      elif value.lower() in ('inf', 'nan'):
        value = float(value)
  if default is None or value is None:
    return value
  if isinstance(default, ConfigDict):
    raise ValueError(f'{name} is a section: set its keys, or None; got {value!r}.')
  if isinstance(default, bool):
    fits = isinstance(value, bool)
  elif isinstance(default, float):
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    value = float(value) if fits else value
  elif isinstance(default, int):
    fits = isinstance(value, int) and not isinstance(value, bool)
  elif isinstance(default, tuple):
    fits = isinstance(value, tuple | list)
    value = tuple(value) if fits else value
  else:
    fits = isinstance(value, type(default))
  if not fits:
    raise ValueError(
      f'{name} got {value!r}, but needs a value like {default!r} '
      f'({type(default).__name__}).'
    )
  return value


def _suggest(word, known):
  close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
  return f' Did you mean {" or ".join(close)}?' if close else ''


def _plain(value):
  if hasattr(value, 'to_dict'):
    return value.to_dict()
  return str(value)
