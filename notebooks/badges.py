"""Writes the badge of every notebook, from REPOSITORY in setup.py.

    python notebooks/badges.py

With an address (https://github.com/OWNER/NAME) a click opens the notebook in Colab;
without one Colab opens and the notebook has to be uploaded.
"""

import json
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
NOTEBOOKS = sorted(HERE.glob('*.ipynb'))
COLAB = 'https://colab.research.google.com/'
PICTURE = f'[![Open in Colab]({COLAB}assets/colab-badge.svg)]'
UPLOAD = (
  '*File, Upload notebook*: this file. Where the package is not on PyPI, upload its '
  'wheel to the folder of files, too (`python -m build` makes it).'
)
BRANCH = 'main'


def repository() -> str:
  """REPOSITORY of setup.py, '' where the project has no public address."""
  text = (HERE.parent / 'setup.py').read_text(encoding='utf-8')
  return re.search(r"^REPOSITORY = '(.*)'", text, re.MULTILINE)[1]


def badge(address: str, name: str) -> str:
  """The line of Markdown for a notebook.

  Args:
    address: https://github.com/OWNER/NAME, or ''.
    name: of the file in notebooks/.

  Raises:
    ValueError: an address of another form.
  """
  if not address:
    return f'{PICTURE}({COLAB}) {UPLOAD}'
  found = re.fullmatch(r'https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?', address)
  if not found:
    raise ValueError(
      f'REPOSITORY in setup.py is {address!r}, expected https://github.com/OWNER/NAME.'
    )
  return f'{PICTURE}({COLAB}github/{found[1]}/blob/{BRANCH}/notebooks/{name})'


def write(address: str) -> None:
  """Puts `badge` into the first cell of every notebook."""
  for path in NOTEBOOKS:
    content = json.loads(path.read_text(encoding='utf-8'))
    source = content['cells'][0]['source']
    (place,) = (i for i, line in enumerate(source) if line.startswith(PICTURE))
    source[place] = badge(address, path.name) + '\n'
    text = json.dumps(content, indent=1, ensure_ascii=False)
    path.write_text(f'{text}\n', encoding='utf-8')


if __name__ == '__main__':
  write(repository())
