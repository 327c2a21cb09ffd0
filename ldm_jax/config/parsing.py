"""A config is data: arguments of a config file, overrides, hashes, and how to check.

`configs/<name>.py` starts from `defaults()`, so that every key exists once, with its
reason, and a misspelt override is found.
"""

import ast
import contextvars
import difflib
import hashlib
import json
import pathlib
import re
import runpy
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from ldm_jax.types import Config

# Sections whose keys the user invents: attribute names to change, a layout's options.
OPEN_SECTIONS = re.compile(
  r'counterfactual\.(set|options)|data\.\w+\.options|sample\.within_patient'
)
# Options of layouts in messages, which know no section: 'options.visit'.
OPTION = re.compile(r'(?<![\w.])options\.([a-z_]+)( of the data section)?')
ROOT = re.compile(r'\broot of the data section')
# What stands behind the = of an advised flag, so that it can be typed.
EXAMPLES = {
  **dict.fromkeys(('visit', 'subject', 'cohort'), 'COLUMN'),
  **dict.fromkeys(('image', 'label'), 'COLUMN_OR_PATTERN'),
  **{'table': 'FILE', 'frame': '0', 'stack': 'True', 'max_days': '365'},
}
# The cohorts that configs/folder.py reads from one folder.
FOLDER_COHORTS = ('public', 'private', 'test')
# gs://, s3://, http://, file:// ..., also as pathlib shortens them; no drive letter.
ADDRESS = re.compile(r'[A-Za-z][A-Za-z0-9+.-]+:/')
# Keys that take a number, or a tuple with one a channel.
ONE_OR_MORE = ('adapt.drift.value',)
# Flags of the command line while a config file is read: it may look at the data, and
# must see them with the options of the flags.
_flags: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar(
  'flags',
  default=types.MappingProxyType({}),
)


def parse_arg(
  arg: str | None, presets: Sequence[str], **options: Any
) -> types.SimpleNamespace:
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
        f'The config argument {word!r} is not known.{suggest(word, known)} '
        f'This config takes: {", ".join(known)}.'
      )
  for key in options:
    # A config file may read the table itself, before the flags are applied. Where they
    # give one cohort another option than the other, only `with_flags` can tell.
    flags = [_flags.get().get(f'data.{n}.options.{key}') for n in FOLDER_COHORTS[:2]]
    if values[key] == '' and flags[0] and flags[0] == flags[1]:
      values[key] = str(flags[0])
  return types.SimpleNamespace(**values)


def load(spec: str, flags: Mapping[str, Any] | None = None) -> Config:
  """Loads `path/to/config.py[:argument]` and returns its unlocked ConfigDict.

  Args:
    spec: of the file.
    flags: what `override` will be given. Only options of data matter here, to a config
      file that reads the data.

  Raises:
    ValueError: if the file does not exist or has no `get_config`.
  """
  require_local('--config', spec)
  path, _, arg = spec.partition(':')
  file = config_file(path)
  found = runpy.run_path(str(file), run_name=f'config_{file.stem}')
  if 'get_config' not in found:
    raise ValueError(
      f'{path} has no function get_config(arg), which a config file must define; '
      'start from configs/folder.py.'
    )
  token = _flags.set(flags or {})
  try:
    return found['get_config'](arg)
  except ValueError as error:
    if type(error) is ValueError and OPTION.search(str(error)):
      raise ValueError(name_flags(str(error), FOLDER_COHORTS)) from error
    raise
  finally:
    _flags.reset(token)


def packaged(folder: str) -> pathlib.Path:
  """Where the package has `configs` or `launch`: installed, or beside it in a checkout.

  Args:
    folder: name of the folder.
  """
  package = pathlib.Path(__file__).resolve().parent.parent
  installed = package / 'packaged' / folder
  return installed if installed.is_dir() else package.parent / folder


def config_names() -> list[str]:
  """Names of the configs that come with the package, as --config takes them."""
  return sorted(path.stem for path in packaged('configs').glob('*.py'))


def config_file(path: str) -> pathlib.Path:
  """The file of a path, or of the name of a config that comes with the package.

  Raises:
    ValueError: there is neither.
  """
  file = pathlib.Path(path)
  if file.is_file():
    return file
  known = config_names()
  if path in known:
    return packaged('configs') / f'{path}.py'
  advice = f'or a name: {", ".join(known)}'
  if file.stem in known:
    advice = f'or the name {file.stem}, as in --config={file.stem}:tiny'
  raise ValueError(
    f'There is no config file {path!r} (looked in {pathlib.Path.cwd()}). '
    f'Give the path of a file like configs/cardiac.py in --config, {advice}.'
  )


def with_flags(data: Config) -> Config:
  """The section `data` with the options of the flags, while a config file is read.

  Options alone: without them the data may be unreadable. What else the flags change is
  for the run to see.
  """
  ours = {
    key: value
    for key, value in _flags.get().items()
    if re.match(r'data\.\w+\.options\.', key)
  }
  if not ours:
    return data
  copy = data.copy_and_resolve_references()
  return override(ConfigDict({'data': copy}), ours).data


def name_flags(
  text: str, cohorts: Iterable[str], known: Iterable[str] | None = None
) -> str:
  """A message with flags in place of 'options.visit', 'root of the data section'.

  Args:
    text: of an error of a layout or reader, which does not know whose data it reads.
    cohorts: names of the sections of data that it concerns; each gets a flag.
    known: options that the layout has; one it has not is not advised. None for any.
  """
  cohorts = tuple(cohorts)

  def option(match):
    name = match[1]
    if text[match.end() :].startswith(' is '):  # a statement, not advice
      return f'the option {name}'
    if known is not None and name not in known:
      return f'the option {name} (this layout has none: use the layout folder)'
    end = EXAMPLES.get(name, '...')
    return ' '.join(f'--config.data.{c}.options.{name}={end}' for c in cohorts)

  roots = ' '.join(f'--config.data.{cohort}.root=FOLDER' for cohort in cohorts)
  return ROOT.sub(roots, OPTION.sub(option, text))


def override(config: Config, assignments: Mapping[str, Any]) -> Config:
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
    is_open = OPEN_SECTIONS.fullmatch('.'.join(parents)) is not None
    if not isinstance(section, ConfigDict) or (leaf not in section and not is_open):
      known = flatten(config)
      raise ValueError(
        f'The config has no key {key!r}.{suggest(key, known)} '
        'Correct the flag --config.' + key + '.'
      )
    with section.unlocked(), section.ignore_type():
      if is_open and (leaf not in section or not key.startswith('data.')):
        section[leaf] = str(value)
      else:
        default = 0.0 if key in ONE_OR_MORE else section[leaf]
        several = key in ONE_OR_MORE and str(value).strip()[:1] in ('(', '[')
        default = (0.0,) if several else default
        section[leaf] = _convert(value, default, f'--config.{key}')
  return config


def flatten(config: Config, prefix: str = '') -> dict[str, Any]:
  """Nested config -> {'a.b': value}."""
  flat: dict[str, Any] = {}
  for key in config:
    value = config[key]
    if isinstance(value, ConfigDict | FrozenConfigDict):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def require(holds: Any, key: str, value: Any, required: str) -> None:
  """Raises ValueError, naming the key, unless a value holds what is required."""
  if not holds:
    raise ValueError(
      f'config.{key} is {value!r}, but must be {required}. Set --config.{key}=...'
    )


def require_choices(config: Config, choices: Mapping[str, Sequence[str]]) -> None:
  """Raises ValueError for a key whose value is not among its choices."""
  flat = flatten(config)
  for key, names in choices.items():
    require(flat[key] in names, key, flat[key], f'one of {", ".join(names)}')


def require_steps(config: Config, key: str) -> None:
  """Raises ValueError where a section trains nothing and starts from no weights."""
  value, init = config[key].steps, config[key].init
  required = f'above 0, or 0 with --config.{key}.init'
  require(value > 0 or (value == 0 and init), f'{key}.steps', value, required)


def require_local(key: str, value: Any) -> None:
  """Raises ValueError, naming the key, for an address such as gs://bucket/folder.

  Opened as a path it would silently become a folder `gs:` here.
  """
  if isinstance(value, str) and ADDRESS.match(value):
    raise ValueError(
      f'{key} is {value!r}, an address; expected a path of this machine. Mount the '
      'bucket or share (gcsfuse, mount-s3, NFS) and give the mounted path, or work on '
      'a local disk and copy before or after.'
    )


def to_plain(config: Config) -> dict[str, Any]:
  """ConfigDict -> JSON-able dict (tuples become lists)."""
  return json.loads(json.dumps(config.to_dict(), default=_plain))


def digest(plain: Any) -> str:
  """sha256 of a JSON-able value, the same in every process."""
  return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


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
  is_section = isinstance(default, ConfigDict)
  has_value = is_section and 'value' in default
  if default is None or (value is None and not has_value):
    return value
  if is_section:
    inner = f'{name}.value={value or 0}' if has_value else 'its keys, or None'
    raise ValueError(f'{name} is a section: set {inner}; got {value!r}.')
  if isinstance(default, bool):
    fits = isinstance(value, bool)
  elif isinstance(default, float):
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    value = float(value) if fits else value
  elif isinstance(default, int):
    fits = isinstance(value, int) and not isinstance(value, bool)
  elif isinstance(default, tuple):
    if isinstance(value, float) and len(default) == 1 and type(default[0]) is float:
      value = (value,)  # one decay, say, where several may stand
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


def suggest(word: str, known: Iterable[str]) -> str:
  """' Did you mean ...?' of the names like a word, '' without any."""
  close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
  return f' Did you mean {" or ".join(close)}?' if close else ''


def _plain(value):
  if hasattr(value, 'to_dict'):
    return value.to_dict()
  return str(value)
