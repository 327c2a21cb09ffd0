"""The house rules that a machine can check: who imports whom, lengths, names."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'ldm_jax'
MAX_LINES = 400
# From the ground up. A room imports from rooms of lower floors and from itself; rooms
# of one floor do not know each other. The folders in `data` and `models` are rooms of
# their own, and so are the single modules beside them.
FLOORS = (
  ('types', 'prng', 'interruption', 'jax_environment'),
  ('processes',),
  ('atomic', 'locks'),
  ('process_watch', 'wandb_board'),
  ('cluster',),
  ('config', 'replace_results'),
  ('damaged_files',),
  ('workfolder',),
  ('data.readers', 'data.batching', 'data.prefetch'),
  ('data.cohorts', 'data.preprocessing'),
  ('data.tables', 'data.phantom', 'data.prompts'),
  ('data.layouts', 'data.store'),
  ('data.inspection', 'data.layout_options'),
  ('data.cohorts_of_config', 'data.folder_scans', 'data.tfds_builders'),
  ('data.demonstration_split',),
  ('diffusion',),
  (
    'models.adapters',
    'models.blocks',
    'models.init',
    'models.norms',
    'models.platform',
  ),
  ('models.conv',),
  ('models.layers',),
  ('models.attention', 'models.critics'),
  ('models.autoencoders', 'models.conditions'),
  ('models.denoisers',),
  ('models.interop',),
  ('models.convert',),
  ('privacy',),
  ('training',),
  ('synthesis', 'evaluation'),
  ('report', 'sharing'),
  ('pipeline', 'commands'),
  ('stages', 'studio'),
  ('main',),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
KNOWS_CONFIG = {'config', 'replace_results', 'damaged_files'}
# Packages that one room alone imports, and modules that a room does not import.
ONLY = {'jax_privacy': 'privacy', 'dp_accounting': 'privacy'}
NEVER = {
  'data': {'jax', 'flax', 'optax', 'orbax'},
  'diffusion': {'flax.linen', 'optax', 'ml_collections'},
}
# Not rooms of their own in the picture of CONTRIBUTING.md: small modules that any room
# may import.
NOT_DRAWN = {
  *('__init__', 'types', 'prng', 'atomic', 'replace_results'),
  *('damaged_files', 'interruption', 'locks', 'jax_environment', 'wandb_board'),
  *('processes', 'cluster', 'process_watch'),
}
# Optional: nothing at run time needs them, so no module imports them at its top.
OPTIONAL = {'torch', 'monai', 'diffusers', 'tensorflow', 'tensorflow_datasets'}
OPTIONAL |= {'anyio', 'starlette', 'uvicorn'}
# Modules that are made of an optional package, imported by its own command alone.
OF_OPTIONAL = {
  'ldm_jax/data/tfds_builders.py': {'tensorflow_datasets'},
  'ldm_jax/studio/server.py': {'anyio', 'starlette', 'uvicorn'},
}

FILES = sorted(PACKAGE.rglob('*.py'))
FRONT = PACKAGE / '__init__.py'
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
  return room_named(path.relative_to(PACKAGE).with_suffix('').parts)


def room_named(parts):
  """The room of a module, ('data', 'store', 'split') -> 'data.store'."""
  return '.'.join(parts[: 2 if parts[0] in ('data', 'models') else 1])


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
  whole = room.split('.')[0]
  if path == FRONT:
    return []  # see test_the_package_itself_offers_load_and_imports_nothing_for_it
  if room.endswith('__init__'):
    return [f'{name} in __init__.py' for _, name in imports(path)]
  found = []
  for line, name in imports(path):
    top, *rest = name.split('.')
    if top == 'ldm_jax' and rest:
      other = room_named(rest)
      if other not in FLOOR:
        found.append(f'line {line}: {name}: {other} is no room')
      elif other != room and FLOOR[other] > FLOOR[room]:
        found.append(f'line {line}: {room} imports {other}, which stands above it')
      elif other != room and FLOOR[other] == FLOOR[room]:
        found.append(f'line {line}: {room} and {other} do not know each other')
      elif room == 'diffusion' and other in KNOWS_CONFIG:
        found.append(f'line {line}: diffusion knows no config')
    if ONLY.get(top, whole) != whole:
      found.append(f'line {line}: only {ONLY[top]} imports {top}')
    if any(f'{name}.'.startswith(f'{other}.') for other in NEVER.get(whole, ())):
      found.append(f'line {line}: {whole} does not import {name}')
  return found


def module_of(path):
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def circles(graph):
  """Modules on circles of imports, or between two of them, sorted; [] without any."""
  left = {name: set(others) & set(graph) for name, others in graph.items()}
  while True:
    done = {name for name, others in left.items() if not others}
    done |= set(left) - set().union(*left.values())
    if not done:
      return sorted(left)
    left = {name: left[name] - done for name in set(left) - done}
    if not left:
      return []


def imported_modules(paths):
  """{module: modules of the package that it imports, those in functions too}."""
  names = {module_of(path): path for path in paths}
  graph = {}
  for name, path in names.items():
    found = set()
    for _, other in imports(path):
      module = other if other in names else other.rpartition('.')[0]
      # A module's import loads the folders that it lies in; they hold no code.
      if module in names and not f'{name}.'.startswith(f'{module}.'):
        found.add(module)
    graph[name] = found
  return graph


def arrows(graph):
  """'a --> b' for each import that no longer way of imports implies, sorted."""

  def reached(name):
    return set(graph[name]).union(*(reached(other) for other in graph[name]))

  return sorted(
    f'{name} --> {other}'
    for name, others in graph.items()
    for other in others
    if not any(other in reached(between) for between in others - {other})
  )


def rooms_imported():
  """{room at the top: rooms that it imports}, without the modules that all may use."""
  graph = {}
  for path in FILES:
    room = path.relative_to(PACKAGE).with_suffix('').parts[0]
    if room in NOT_DRAWN:
      continue
    names = [name.split('.') for _, name in imports(path)]
    others = {rest[0] for top, *rest in names if top == 'ldm_jax' and rest}
    graph.setdefault(room, set()).update(others - {room, *NOT_DRAWN})
  return graph


def test_the_picture_in_contributing_shows_the_rooms_as_they_import_each_other():
  graph = rooms_imported()
  text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
  (picture,) = re.findall(r'```mermaid\n(.*?)```', text, re.DOTALL)
  drawn = [line.strip() for line in picture.splitlines() if '-->' in line]
  assert sorted(drawn) == arrows(graph)


def test_an_arrow_that_a_longer_way_implies_is_not_drawn():
  graph = {'a': {'b', 'c'}, 'b': {'c', 'd'}, 'c': {'d'}, 'd': set()}
  assert arrows(graph) == ['a --> b', 'b --> c', 'c --> d']


def test_every_room_has_its_floor():
  rooms = {room_of(path) for path in FILES}
  rooms = {room for room in rooms if not room.endswith('__init__')}
  assert rooms <= set(FLOOR), f'give {rooms - set(FLOOR)} a floor in FLOORS'


@each_file
def test_a_room_imports_only_rooms_before_it(path):
  assert not offences(path)


def test_no_module_imports_itself_by_way_of_others():
  assert not circles(imported_modules(FILES))


def test_a_circle_is_found_behind_modules_that_lead_to_it_and_away_from_it():
  graph = {'a': {'b'}, 'b': {'c'}, 'c': {'b', 'd'}, 'd': set()}
  assert circles(graph) == ['b', 'c']
  assert not circles({'a': {'b', 'c'}, 'b': {'c'}, 'c': set()})


@pytest.mark.parametrize(
  ('place', 'line', 'offends'),
  [
    ('diffusion/process.py', 'from ldm_jax.data.store import split', False),
    ('diffusion/process.py', 'from ldm_jax.models import layers', True),
    ('diffusion/process.py', 'from ldm_jax.config import parsing', True),
    ('data/store/store.py', 'import jax.numpy as jnp', True),
    ('diffusion/process.py', 'from flax import linen as nn', True),
    ('diffusion/process.py', 'from flax import struct', False),
    ('data/store/store.py', 'from ldm_jax.config.parsing import to_plain', False),
    ('data/store/store.py', 'from ldm_jax.data.cohorts import cohort', False),
    ('data/store/store.py', 'from ldm_jax.data.inspection import findings', True),
    ('data/cohorts/cohort.py', 'from ldm_jax.data.store import visit_pairs', True),
    ('models/conv/conv.py', 'from ldm_jax.models.denoisers import unet', True),
    ('models/denoisers/unet.py', 'from ldm_jax.models.conv.conv import Conv', False),
    ('evaluation/causal.py', 'from ldm_jax.synthesis import generate', True),
    ('synthesis/generate.py', 'def f():\n  import ldm_jax.evaluation.control', True),
    ('training/private_run.py', 'import dp_accounting', True),
    ('privacy/accounting.py', 'import dp_accounting', False),
    ('report/page.py', 'from .. import stages', True),
    ('stages.py', 'from ldm_jax.pipeline import runner', False),
    ('pipeline/runner.py', 'from ldm_jax import stages', True),
    ('sharing/package.py', 'from ldm_jax.studio import scans', True),
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
  [
    p
    for p in FILES
    if p.name == '__init__.py' and p != FRONT and p.parent.name != 'layouts'
  ],
  ids=name_of,
)
def test_an_init_file_exports_nothing(path):
  allowed = (ast.Expr, ast.Assign)  # the docstring and __version__
  assert all(isinstance(node, allowed) for node in parse(path).body)


def test_the_package_itself_offers_load_and_imports_nothing_for_it():
  body = parse(FRONT).body
  at_top = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
  names = [alias.name for node in at_top for alias in node.names]
  assert names == ['annotations', 'os', 'typing']
  functions = [node.name for node in body if isinstance(node, ast.FunctionDef)]
  assert functions == ['load']


def mirror_of(path):
  """Where the laws of a module are tested."""
  inside = path.relative_to(PACKAGE)
  return ROOT / 'tests' / inside.parent / f'test_{inside.name}'


def test_every_module_has_its_mirror_in_the_tests():
  modules = {
    str(path.relative_to(PACKAGE).with_suffix('')): mirror_of(path)
    for path in FILES
    if path.stem not in ('__init__', 'types')
  }
  without = {name for name, mirror in modules.items() if not mirror.is_file()}
  assert not without, f'write {without}'
  for name in modules:
    tests = [
      node
      for node in ast.walk(parse(modules[name]))
      if isinstance(node, ast.FunctionDef) and node.name.startswith('test_')
    ]
    assert tests, f'{modules[name]} states no law'
