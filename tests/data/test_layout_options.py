"""Laws of a layout's options: flags give text, layouts get what they declare."""

from __future__ import annotations

import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.data import layout_options, layouts


class Declared:
  """A layout with options of several kinds."""

  @staticmethod
  def read(
    root,
    schema=None,
    table: str = '',
    frame: int | None = None,
    stack: bool = False,
    names: tuple[str, ...] = (),
  ): ...


@pytest.fixture(autouse=True)
def layout(monkeypatch):
  monkeypatch.setitem(layouts.LAYOUTS, 'declared', Declared)


@pytest.mark.parametrize(
  ('key', 'text', 'value'),
  [
    ('table', '7', '7'),
    ('table', None, ''),
    ('frame', '7', 7),
    ('frame', None, None),
    ('stack', 'true', True),
    ('names', 'a|b', ('a', 'b')),
  ],
)
def test_text_becomes_what_the_layout_declares(key, text, value):
  found = layout_options.typed('public', 'declared', key, text)
  assert found == value
  assert type(found) is type(value)


@pytest.mark.parametrize(
  ('key', 'text', 'message'),
  [
    ('frame', 'seven', 'a whole number, or None'),
    ('stack', 'maybe', 'True or False'),
    ('names', '7', 'a tuple'),
    ('fram', '7', 'Did you mean frame'),
  ],
)
def test_text_of_another_kind_is_an_error_with_the_flag(key, text, message):
  with pytest.raises(ValueError, match=message) as caught:
    layout_options.typed('public', 'declared', key, text)
  assert f'--config.data.public.options.{key}' in str(caught.value)


def test_phantoms_check_their_own_options():
  assert layout_options.known('declared') == ['table', 'frame', 'stack', 'names']
  assert layout_options.known('phantom_cardiac') is None


def test_lists_of_a_section_become_tuples():
  section = defaults().data.public
  with section.options.unlocked():
    section.options.names = ['a', 'b']
  assert layout_options.of_section(section) == {'names': ('a', 'b')}
