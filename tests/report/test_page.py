"""Laws of what all pages share: templates escape, and files are written whole."""

import re

import jinja2
import pytest

from ldm_jax.report import page

PACKAGE = page.pathlib.Path(page.__file__).parent
HOSTILE = '"><script>alert(1)</script>'
TEMPLATES = page.ENVIRONMENT.list_templates()


@pytest.mark.parametrize('name', [t for t in TEMPLATES if t.endswith('.html')])
def test_no_template_turns_escaping_off_or_names_another_place(name):
  source, *_ = page.ENVIRONMENT.loader.get_source(page.ENVIRONMENT, name)
  page.ENVIRONMENT.get_template(name)
  assert not re.search(r'\|\s*safe\b|autoescape|https?:|//', source)


def test_no_module_of_the_room_holds_markup():
  for path in PACKAGE.glob('*.py'):
    source = path.read_text()
    assert not re.search(r'</?(p|div|td|tr|li|b|span|img|table|h\d)[ >]', source), path
    assert 'Markup' not in source, path


def test_title_banner_and_names_of_sections_are_escaped(read):
  html = page.render(
    'base.html', title=HOSTILE, banner=HOSTILE, sections={'a': HOSTILE}
  )
  assert HOSTILE not in html
  assert read(html).tags.count('script') == 1
  assert html.count('&lt;script&gt;') == 4  # the title stands twice


def test_without_a_banner_there_is_no_red(read):
  assert 'class="banner"' not in page.render(
    'base.html', title='', banner='', sections={}
  )


def test_a_value_that_a_template_needs_may_not_be_forgotten():
  with pytest.raises(jinja2.UndefinedError, match='banner'):
    page.render('base.html', title='', sections={})


def test_write_leaves_one_file_with_the_page_and_replaces_it(tmp_path):
  for text in ('old', 'new'):
    path = page.write(tmp_path / 'report' / 'index.html', text)
    assert path.read_text() == text
  assert [p.name for p in path.parent.iterdir()] == ['index.html']


def test_a_name_that_is_no_text_can_be_written(tmp_path):
  path = page.write(tmp_path / 'a.html', 'P\udcff')
  assert path.read_bytes() == b'P\\udcff'


def test_settings_are_json_and_paths_are_text():
  assert page.settings(None) == '{}'
  assert page.settings({'a': page.pathlib.Path('x')}) == '{\n  "a": "x"\n}'
