"""The documentation: its links lead somewhere, and the API reference is whole."""

import importlib
import importlib.util
import pathlib
import re

import pytest

import ldm_jax

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob('*.md')), *sorted((ROOT / 'docs').glob('*.md'))]
LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')
HEADING = re.compile(r'^#+ (.*)$', re.MULTILINE)
CODE = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)


def load_reference():
  spec = importlib.util.spec_from_file_location(
    'docs_reference', ROOT / 'docs' / 'reference.py'
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def anchors(page):
  """Names of a page's headings as GitHub and mkdocs make them."""
  titles = HEADING.findall(CODE.sub('', page.read_text()))
  words = [re.sub(r'[^\w\- ]', '', title.lower()).strip() for title in titles]
  return {title.replace(' ', '-') for title in words}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
  broken = []
  for link in LINK.findall(CODE.sub('', page.read_text())):
    path, _, anchor = link.partition('#')
    if '://' in link or link.startswith('mailto:'):
      continue
    found = (page.parent / path).resolve() if path else page
    if not found.exists() or (anchor and anchor not in anchors(found)):
      broken.append(link)
  assert not broken


def test_every_page_of_docs_is_in_the_navigation():
  listed = (ROOT / 'mkdocs.yml').read_text()
  pages = [path.name for path in (ROOT / 'docs').glob('*.md')]
  assert [name for name in pages if f': {name}\n' not in listed] == []


def test_the_reference_has_a_page_and_an_entry_for_every_public_module():
  reference = load_reference()
  modules, contents = reference.modules(), reference.contents()
  assert pathlib.Path('ldm_jax/stages.py') in modules
  for module in modules:
    page = reference.page_of(module).removeprefix('reference/')
    assert f'({page})' in contents


@pytest.mark.parametrize(
  'link, folder, page, expected',
  [
    ('docs/data.md#layouts', '', 'index.md', 'data.md#layouts'),
    ('../README.md', 'docs', 'data.md', 'index.md'),
    ('ldm_jax/stages.py', '', 'index.md', 'reference/stages.md'),
    ('../ldm_jax/stages.py', 'docs', 'data.md', 'reference/stages.md'),
    ('https://example.org', '', 'index.md', 'https://example.org'),
    ('LICENSE', '', 'index.md', None),
  ],
)
def test_a_link_of_the_repository_becomes_one_of_the_site(link, folder, page, expected):
  assert load_reference().target(link, folder, page) == expected


# Names of files and imports in the pages

FOLDERS = ('ldm_jax', 'configs', 'launch', 'benchmarks', 'notebooks', 'docs', 'tests')
NAMED = re.compile(r'(?<![\w/.<>*{-])((?:[\w-]+/)*\w+\.(?:py|sh|ipynb))\b')
IMPORT = re.compile(r'from (ldm_jax[\w.]*) import ([\w, ]+)')
NOT_FILES = {'utils.py', 'helpers.py'}  # named because they must not exist
CURRENT = [page for page in PAGES if page.name != 'CHANGELOG.md']


FILES = [
  f'/{path.relative_to(ROOT)}'
  for folder in FOLDERS
  for path in (ROOT / folder).rglob('*.*')
] + [f'/{path.name}' for path in ROOT.glob('*.py')]


def is_file(name):
  """Whether the repository has a file of this path, or of a path that ends in it."""
  return any(path.endswith(f'/{name}') for path in FILES)


@pytest.mark.parametrize('page', CURRENT, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page):
  names = set(NAMED.findall(page.read_text())) - NOT_FILES
  assert not [name for name in sorted(names) if not is_file(name)]


@pytest.mark.parametrize('page', CURRENT, ids=lambda page: page.name)
def test_every_import_that_a_page_shows_works(page):
  for module, names in IMPORT.findall(page.read_text()):
    for name in (each.split(' as ')[0] for each in names.split(', ')):
      try:
        importlib.import_module(f'{module}.{name}')
      except ModuleNotFoundError:
        assert hasattr(importlib.import_module(module), name), f'{module}: {name}'


def test_every_test_that_contributing_names_exists():
  names = re.findall(r'`(test_\w+)`', (ROOT / 'CONTRIBUTING.md').read_text())
  tests = ''.join(path.read_text() for path in (ROOT / 'tests').rglob('test_*.py'))
  assert names and all(f'def {name}(' in tests for name in names)


def test_citation_and_the_newest_section_of_the_changelog_name_the_version():
  version = ldm_jax.__version__
  assert f'\nversion: {version}\n' in (ROOT / 'CITATION.cff').read_text()
  sections = re.findall(
    r'^## \[(.+?)\]', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE
  )
  assert sections[:2] == ['Unreleased', version]
  assert 'version=VERSION' in (ROOT / 'setup.py').read_text()
