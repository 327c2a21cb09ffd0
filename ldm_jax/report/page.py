"""Renders and writes the report's pages: one HTML file each that needs nothing else.

The HTML stands in templates/ (jinja2). Modules that end in `_page` gather plain values
for one template each; whatever these hold is escaped.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2

from ldm_jax import atomic
from ldm_jax.report.wording import number

ENVIRONMENT = jinja2.Environment(
  loader=jinja2.PackageLoader('ldm_jax.report'),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
)
ENVIRONMENT.filters['number'] = number


def render(template: str, **values: Any) -> str:
  """A page as text.

  Args:
    template: name of a file in templates/.
    **values: what it needs; all of them `title`, `banner` (a sentence in red above
      everything, '' for none) and `sections`, the id -> name of each.

  Raises:
    jinja2.UndefinedError: the template uses a value that is not given.
  """
  return ENVIRONMENT.get_template(template).render(values)


def write(path: str | os.PathLike, html: str) -> pathlib.Path:
  """Writes a page atomically, creates its folder and returns its path.

  Raises:
    OSError: when the file cannot be written.
  """
  path = pathlib.Path(path)
  atomic.write_text(path, html)
  return path


def settings(config: Mapping | None) -> str:
  """A config as indented JSON, for the section of settings."""
  return json.dumps(config or {}, indent=2, default=str)
