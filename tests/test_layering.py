"""The house rules that a machine can check: who imports whom, lengths, names."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'ldm_jax'
MAX_LINES = 300
# From the ground up. A room imports from rooms of lower floors and from itself.
FLOORS = (
  (
    *('defaults_autoencoder', 'defaults_adapt', 'defaults_counterfactual', 'defaults'),
    *('config', 'ablations', 'presets', 'checks', 'workfolder', 'types'),
    *('checks_counterfactual', 'checks_drift', 'checks_pairs'),
  ),
  ('data',),
  ('diffusion',),
  ('models',),
  ('privacy',),
  ('training',),
  ('synthesis', 'evaluation'),
  ('report',),
  (
    *('staging', 'encoding', 'releasing', 'readying', 'pairing', 'adapting'),
    *('choosing', 'auditing', 'autoencoding', 'editing', 'estimating', 'examining'),
    *('measuring', 'stages'),
  ),
  ('converting', 'planning'),
  ('main',),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# These are single modules of one floor; folders of one floor do not know each other.
MODULES = {
  *('defaults_autoencoder', 'defaults_adapt', 'defaults', 'config', 'ablations'),
  *('checks', 'workfolder', 'staging', 'encoding', 'releasing', 'readying'),
  *('adapting', 'auditing', 'autoencoding', 'choosing', 'estimating', 'examining'),
  *('presets', 'converting', 'planning', 'stages', 'editing'),
  *('defaults_counterfactual', 'checks_counterfactual', 'checks_drift'),
  *('checks_pairs', 'pairing', 'measuring', 'main', 'types'),
}
# Packages that one room alone imports, and modules that a room does not import.
ONLY = {'jax_privacy': 'privacy', 'dp_accounting': 'privacy'}
NEVER = {
  'data': {'jax', 'flax', 'optax', 'orbax'},
  'diffusion': {'flax.linen', 'optax', 'ml_collections'},
}
# Optional: nothing at run time needs them, so no module imports them at its top.
OPTIONAL = {'torch', 'monai', 'diffusers', 'tensorflow', 'tensorflow_datasets'}
# Classes of an optional package, imported by that package's own command alone.
OF_OPTIONAL = {'ldm_jax/data/builders.py': {'tensorflow_datasets'}}

FILES = sorted(PACKAGE.rglob('*.py'))
SOURCES = [
  path
  for folder in ('ldm_jax', 'configs', 'launch', 'benchmarks')
  for path in sorted((ROOT / folder).rglob('*'))
  if path.suffix in ('.py', '.sh')
]


def name_of(path):
  return str(path.relative_to(ROOT))


each_file = pytest.mark.parametrize('path', FILES, ids=name_of)
each_source = pytest.mark.parametrize('path', SOURCES, ids=name_of)


def parse(path):
  return ast.parse(path.read_text(encoding='utf-8'))


def room_of(path):
  return path.relative_to(PACKAGE).with_suffix('').parts[0]


def imports(path):
  """(line, absolute module name) of every import, those inside functions too."""
  package = path.relative_to(ROOT).parts[:-1]
  for node in ast.walk(parse(path)):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = '.'.join(package[: len(package) - node.level + 1]) if node.level else ''
      module = '.'.join(filter(None, (base, node.module)))
      yield from ((node.lineno, f'{module}.{alias.name}') for alias in node.names)


def offences(path):
  """Sentences about imports that break the order of rooms."""
  room = room_of(path)
  if room == '__init__':
    return [f'{name} in __init__.py' for _, name in imports(path)]
  found = []
  for line, name in imports(path):
    top, *rest = name.split('.')
    if top == 'ldm_jax' and rest:
      other = rest[0]
      if other not in FLOOR:
        found.append(f'line {line}: {name}: {other} is no room')
      elif other != room and FLOOR[other] > FLOOR[room]:
        found.append(f'line {line}: {room} imports {other}, which stands above it')
      elif other != room and FLOOR[other] == FLOOR[room] and room not in MODULES:
        found.append(f'line {line}: {room} and {other} do not know each other')
      elif room == 'diffusion' and other in FLOORS[0] and other != 'types':
        found.append(f'line {line}: diffusion knows no config')
    if ONLY.get(top, room) != room:
      found.append(f'line {line}: only {ONLY[top]} imports {top}')
    if any(f'{name}.'.startswith(f'{other}.') for other in NEVER.get(room, ())):
      found.append(f'line {line}: {room} does not import {name}')
  return found


def test_every_room_has_its_floor():
  rooms = {room_of(path) for path in FILES} - {'__init__'}
  assert rooms <= set(FLOOR), f'give {rooms - set(FLOOR)} a floor in FLOORS'


@each_file
def test_a_room_imports_only_rooms_before_it(path):
  assert not offences(path)


def test_the_ground_floor_and_the_stages_import_each_other_in_one_direction():
  graph = {
    path.stem: {
      name.split('.')[1] for _, name in imports(path) if name.startswith('ldm_jax.')
    }
    for path in PACKAGE.glob('*.py')
  }
  for name, others in graph.items():
    for other in others & set(graph):
      assert name not in graph[other], f'{name} and {other} import each other'


@pytest.mark.parametrize(
  ('place', 'line', 'offends'),
  [
    ('diffusion/process.py', 'from ldm_jax.data import store', False),
    ('diffusion/process.py', 'from ldm_jax.models import layers', True),
    ('diffusion/process.py', 'from ldm_jax import config', True),
    ('data/store.py', 'import jax.numpy as jnp', True),
    ('diffusion/process.py', 'from flax import linen as nn', True),
    ('diffusion/process.py', 'from flax import struct', False),
    ('data/store.py', 'from ldm_jax.config import to_plain', False),
    ('evaluation/causal.py', 'from ldm_jax.synthesis import generate', True),
    ('synthesis/generate.py', 'def f():\n  import ldm_jax.evaluation.control', True),
    ('training/private.py', 'import dp_accounting', True),
    ('privacy/accounting.py', 'import dp_accounting', False),
    ('report/page.py', 'from .. import stages', True),
    ('stages.py', 'from ldm_jax import staging', False),
  ],
)
def test_the_check_itself_finds_what_it_looks_for(
  tmp_path, monkeypatch, place, line, offends
):
  monkeypatch.setitem(globals(), 'ROOT', tmp_path)
  monkeypatch.setitem(globals(), 'PACKAGE', tmp_path / 'ldm_jax')
  path = tmp_path / 'ldm_jax' / place
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(line)
  assert bool(offences(path)) == offends


@each_file
def test_no_module_needs_an_optional_package_to_be_imported(path):
  for node in parse(path).body:
    if isinstance(node, ast.Import | ast.ImportFrom):
      names = [alias.name for alias in node.names]
      tops = {
        name.split('.')[0] for name in (*names, getattr(node, 'module', '') or '')
      }
      assert not tops & OPTIONAL - OF_OPTIONAL.get(name_of(path), set())


@each_source
def test_a_file_is_short_enough_to_read(path):
  count = len(path.read_text(encoding='utf-8').splitlines())
  assert count <= MAX_LINES, f'{count} lines; split it by concept'


@each_source
def test_a_file_is_named_after_what_it_holds(path):
  assert path.stem not in ('utils', 'util', 'helpers', 'helper', 'misc', 'manager')
  assert path.stem == path.stem.lower()


@pytest.mark.parametrize(
  'path', [path for path in SOURCES if path.suffix == '.py'], ids=name_of
)
def test_a_module_says_its_purpose(path):
  assert ast.get_docstring(parse(path)), 'the file has no docstring'


@each_file
def test_nothing_is_asserted_left_open_or_raised_bare(path):
  for node in ast.walk(parse(path)):
    where = f'line {getattr(node, "lineno", 0)}'
    assert not isinstance(node, ast.Assert), f'{where}: raise ValueError, not assert'
    assert not (isinstance(node, ast.ExceptHandler) and node.type is None), where
    if isinstance(node, ast.Raise) and node.exc is not None:
      call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
      name = getattr(call, 'id', '')
      assert name not in ('Exception', 'BaseException', 'NotImplementedError'), where
    if isinstance(node, ast.ImportFrom):
      assert all(alias.name != '*' for alias in node.names), f'{where}: import *'


@each_file
def test_nothing_is_left_to_do(path):
  text = path.read_text(encoding='utf-8')
  for mark in ('TODO', 'FIXME', 'XXX'):
    assert mark not in text


@pytest.mark.parametrize(
  'path',
  [p for p in FILES if p.name == '__init__.py' and p.parent.name != 'layouts'],
  ids=name_of,
)
def test_an_init_file_exports_nothing(path):
  allowed = (ast.Expr, ast.Assign)  # the docstring and __version__
  assert all(isinstance(node, allowed) for node in parse(path).body)
