"""Annotations: every public function carries them, and mypy finds no contradiction."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'ldm_jax'
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


FILES = sorted(PACKAGE.rglob('*.py'))


def is_public(name):
  return not name.startswith('_') or name in ('__init__', '__call__')


def public_functions(tree):
  """(name, node, whether it is a method) of a module's public functions and methods."""
  for node in tree.body:
    if isinstance(node, FUNCTIONS) and is_public(node.name):
      yield node.name, node, False
    elif isinstance(node, ast.ClassDef) and is_public(node.name):
      for inner in node.body:
        if isinstance(inner, FUNCTIONS) and is_public(inner.name):
          yield f'{node.name}.{inner.name}', inner, True


def not_annotated(node, is_method):
  """What a function's signature lacks: names of parameters, and 'return'."""
  given = node.args
  parameters = [*given.posonlyargs, *given.args]
  is_static = any(getattr(d, 'id', '') == 'staticmethod' for d in node.decorator_list)
  if is_method and not is_static:
    parameters = parameters[1:]  # self
  parameters += [*given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
  found = [each.arg for each in parameters if each.annotation is None]
  # mypy knows what an initialiser returns.
  if node.returns is None and node.name != '__init__':
    found.append('return')
  return found


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_function_has_annotations(path):
  tree = ast.parse(path.read_text(encoding='utf-8'))
  lacking = {
    name: missing
    for name, node, is_method in public_functions(tree)
    if (missing := not_annotated(node, is_method))
  }
  assert not lacking


def test_the_check_finds_each_kind_of_parameter_and_the_return():
  source = (
    'def f(a, /, b, *c, d: int, **e): ...\n'
    'def _g(x): ...\n'
    'class A:\n'
    '  def __init__(self, x: int): ...\n'
    '  def h(self, x) -> int: ...\n'
    '  @staticmethod\n'
    '  def k(x) -> int: ...\n'
  )
  found = {
    name: not_annotated(node, is_method)
    for name, node, is_method in public_functions(ast.parse(source))
  }
  assert found == {
    'f': ['a', 'b', 'c', 'e', 'return'],
    'A.__init__': [],
    'A.h': ['x'],
    'A.k': ['x'],
  }


def test_mypy_accepts_the_package():
  """Some 30 s of one core without a cache, which lies in .cache/mypy."""
  pytest.importorskip('mypy')
  told = subprocess.run(
    [sys.executable, '-m', 'mypy', '--follow-imports=silent', *map(str, FILES)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert told.returncode == 0, told.stdout + told.stderr
