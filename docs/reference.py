"""Makes pages of the site from the sources: run by mkdocs (plugin gen-files).

The README becomes the front page and CONTRIBUTING a page of its own; every module with
something public gets a page of the API reference.
"""

import ast
import pathlib
import posixpath
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r'(!?)\[([^\]]*)\]\(([^)\s]+)\)')


def modules():
  """Paths below the repository of all modules that define something public."""
  paths = sorted((ROOT / 'ldm_jax').rglob('*.py'))
  return [path.relative_to(ROOT) for path in paths if _is_public(path)]


def _is_public(path):
  tree = ast.parse(path.read_text(encoding='utf-8'))
  kinds = (ast.FunctionDef, ast.ClassDef)
  defined = [node.name for node in tree.body if isinstance(node, kinds)]
  return any(not name.startswith('_') for name in defined)


def page_of(module):
  """'ldm_jax/a/b.py' -> 'reference/a/b.md', a page of the site."""
  below = pathlib.PurePosixPath(module).relative_to('ldm_jax')
  return str('reference' / below.with_suffix('.md'))


def target(link, folder, page):
  """A link in a Markdown file of the repository, as the site needs it.

  Args:
    link: as written, relative to `folder`.
    folder: of the file that holds it, below the repository's root.
    page: the site's page, relative to docs/.

  Returns:
    The link on the site, or None for a file that is no part of it.
  """
  if '://' in link or link.startswith('#'):
    return link
  path, hash_, anchor = link.partition('#')
  path = posixpath.normpath(posixpath.join(folder, path))
  if path == 'README.md':
    found = 'index.md'
  elif path == 'CONTRIBUTING.md':
    found = 'contributing.md'
  elif path.startswith('docs/'):
    found = path.removeprefix('docs/')
  elif path.endswith('.py') and pathlib.Path(path) in modules():
    found = page_of(path)
  else:
    return None
  return posixpath.relpath(found, posixpath.dirname(page) or '.') + hash_ + anchor


def rewritten(text, folder, page):
  """Markdown with the links of the repository turned into links of the site."""

  def replace(match):
    image, words, link = match.groups()
    found = target(link, folder, page)
    return f'{image}[{words}]({found})' if found else words

  return LINK.sub(replace, text)


def write_pages():
  """Writes all pages; mkdocs' gen-files puts them beside those of docs/."""
  import mkdocs_gen_files

  def write(page, text, source):
    with mkdocs_gen_files.open(page, 'w') as file:
      file.write(text)
    mkdocs_gen_files.set_edit_path(page, source)

  for source, page in (
    ('README.md', 'index.md'),
    ('CONTRIBUTING.md', 'contributing.md'),
  ):
    write(page, rewritten((ROOT / source).read_text(), '', page), source)
  for source in sorted((ROOT / 'docs').glob('*.md')):
    text = rewritten(source.read_text(), 'docs', source.name)
    write(source.name, text, f'docs/{source.name}')
  for module in modules():
    dotted = '.'.join(module.with_suffix('').parts)
    write(page_of(module), f'# {dotted}\n\n::: {dotted}\n', str(module))
  write('reference/SUMMARY.md', contents(), 'docs/reference.py')


def contents():
  """The reference's table of contents: rooms, and their modules below them."""
  lines, seen = [], set()
  for module in sorted(modules(), key=lambda path: (path.parent.parts, path.name)):
    *rooms, name = module.with_suffix('').parts[1:]
    for depth, room in enumerate(rooms):
      if (place := tuple(rooms[: depth + 1])) not in seen:
        seen.add(place)
        lines.append(f'{"    " * depth}- {room}')
    page = page_of(module).removeprefix('reference/')
    lines.append(f'{"    " * len(rooms)}- [{name}]({page})')
  return '\n'.join(lines) + '\n'


if __name__ == '<run_path>':  # the name under which gen-files runs a script
  write_pages()
