"""Laws of the report: self-contained, escaped, complete, degrading gracefully."""

import html.parser
import re

import numpy as np
import pytest

from ldm_jax.report import figures, index_page, plots, privacy_statement

BLANK = figures.encode_png(np.zeros((2, 2), np.uint8))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  """Curves and accounting, which are tested elsewhere, cost nothing."""
  monkeypatch.setattr(plots, '_saved', lambda *_: BLANK)
  monkeypatch.setattr(privacy_statement, 'trade_off', lambda _: ())


@pytest.fixture(scope='module')
def document(content):
  return index_page.html(content)


def test_the_page_is_well_formed_with_every_section(read, document):
  reader = read(document)
  assert reader.open == []
  names = list(index_page.SECTIONS)
  assert [i for i in reader.ids if i in names] == names
  assert {f'#{name}' for name in names} <= set(reader.links)
  assert len(reader.ids) == len(set(reader.ids))


def test_the_page_loads_nothing_from_elsewhere(read, document):
  reader = read(document)
  assert reader.sources
  assert all(source.startswith('data:image/png;base64,') for source in reader.sources)
  assert all(link.startswith('#') for link in reader.links)
  assert not re.search(r'https?://|@import|url\(', document)
  assert "default-src 'none'" in document


def test_text_from_users_is_never_read_as_markup(read, document):
  assert '<script>alert' not in document
  assert read(document).tags.count('script') == 1
  assert document.count('&lt;script&gt;alert') >= 6


def test_figures_of_the_metrics_stand_in_the_page(read, document):
  text = ' '.join(read(document).text)
  for expected in ('1.5 (1.2 to 1.9)', '0.91 (0.8 to 0.95)', '7.25 (6 to 8)', '0.123'):
    assert expected in text
  assert '30 real, 20 synthetic' in text
  assert 'n = 30, 15 per half' not in text  # The inner entry's own counts win.


def test_figures_that_saw_private_scans_are_marked(document, content):
  assert document.count('>internal</span>') > 4
  public = {'metrics': {'kid': content['metrics']['kid']}}
  assert '>internal</span>' not in index_page.html(public)


@pytest.mark.parametrize(
  'missing', ['privacy', 'metrics', 'images', 'log', 'control', 'config', 'title']
)
def test_every_part_may_be_missing(read, content, missing):
  reduced = {key: value for key, value in content.items() if key != missing}
  reader = read(index_page.html(reduced))
  assert [key for key in index_page.SECTIONS if key not in reader.ids] == []


def test_an_empty_report_says_what_is_missing(read):
  text = ' '.join(read(index_page.html({})).text)
  for words in ('NOT private', 'No volumes', 'not measured', 'No counterfactuals'):
    assert words in text


def test_unknown_and_undefined_figures_do_not_break_the_page(read):
  metrics = {
    'frechet': {'value': float('nan'), 'low': None, 'high': float('inf')},
    'control': {'a': {'pearson_r': None, 'mae': 1.0, 'n': 1}, 'b': 'text'},
    'memorisation': {'features': {'auc': 0.5}, 'voxels': {'auc': 0.6}},
    'other': ['list', None],
  }
  text = ' '.join(read(index_page.html({'metrics': metrics, 'privacy': None})).text)
  assert 'In voxel space' in text
  assert 'nan' not in text


def test_requests_of_public_patients_are_a_warning_and_uniform_ones_a_caution(content):
  public = index_page.html({**content, 'requests': 'public: those of <patients>'})
  assert 'class="notice warn"><p>Requested attributes: those of &lt;' in public
  uniform = index_page.html({**content, 'requests': 'uniform: drawn at random'})
  assert 'class="notice good"><p>Requested attributes: drawn at random' in uniform
  assert 'sample.requests=private_prior' in uniform
  assert 'sample.requests=private_prior' not in public


def test_counterfactuals_of_private_patients_are_marked(read, content):
  images = {**content['images'], 'internal': ['counterfactuals']}
  text = ' '.join(read(index_page.html({**content, 'images': images})).text)
  assert 'real patients who are not public' in text
  assert 'real public patients' not in text


def test_a_known_truth_is_two_more_rows_of_a_counterfactual(read, content):
  images = content['images']
  truths = {**images, 'truths': [images['real'][2]]}
  for found, count in ((images, 0), (truths, 1)):
    text = read(index_page.html({'images': found})).text
    assert text.count('true difference') == count


def test_the_model_of_the_samples_and_the_code_are_named(content):
  privacy = {**content['privacy'], 'code_version': 'v<1>'}
  models = {'samples': 'adapt <lora>'}
  document = index_page.html({'privacy': privacy, 'models': models})
  assert '<dt>Model of the samples</dt><dd>adapt &lt;lora&gt;</dd>' in document
  assert '<dt>Code</dt><dd>v&lt;1&gt;</dd>' in document


def test_what_the_switch_hides_is_all_that_is_marked_internal(read, content):
  """A copy without the marked elements says nothing that was marked."""
  images = {**content['images'], 'internal': ['real', 'counterfactuals']}
  document = index_page.html({**content, 'images': images})
  opened = re.findall(r'<(\w+)[^>]*class="[^"]*internal[^"]*"', document)
  assert {'tr', 'figure', 'p', 'div', 'optgroup', 'img'} <= set(opened)
  assert 'id="internal"' in document and 'id="without"' in document
  finder = Badges()
  finder.feed(document)
  assert finder.found > 4 and finder.outside == []


class Badges(html.parser.HTMLParser):
  """Counts badges, and lists those outside of every marked element."""

  def __init__(self):
    super().__init__()
    self.stack, self.found, self.outside = [], 0, []

  def handle_starttag(self, tag, attributes):
    if tag not in ('img', 'meta', 'input', 'br'):
      self.stack.append((dict(attributes).get('class') or '').split())

  def handle_endtag(self, tag):
    self.stack.pop()

  def handle_data(self, data):
    if self.stack and 'badge' in self.stack[-1]:
      self.found += 1
      if not any('internal' in classes for classes in self.stack):
        self.outside.append(self.getpos())


def test_a_page_that_leaves_has_no_switch_and_nothing_marked(content):
  public = {
    'metrics': {'kid': content['metrics']['kid']},
    'images': {'synthetic': content['images']['synthetic']},
    'leaves': True,
  }
  document = index_page.html(public)
  assert 'class="internal"' not in document and 'id="internal"' not in document


def test_other_pages_of_the_folder_are_linked(read):
  document = index_page.html({'pages': {'autoencoder.html': 'What it <loses>'}})
  assert 'autoencoder.html' in read(document).links and 'What it &lt;loses' in document


def test_control_that_was_not_measured_says_how_to_have_it_measured(read):
  text = ' '.join(read(index_page.html({})).text)
  for key in ('evaluate.measures', 'evaluate.labels', '--stages=evaluate,report'):
    assert key in text


def test_the_page_of_large_volumes_is_small_enough_for_a_mail(monkeypatch):
  monkeypatch.setattr(index_page, 'MAX_BYTES', 300_000)
  x = np.random.default_rng(0).random((2, 20, 140, 140)).astype(np.float32)
  edited = [(x[0], x[1], x[1] - x[0], 'AGE +10')]
  images = {'synthetic': x, 'sweeps': {'a': ([1, 2], x)}, 'counterfactuals': edited}
  assert len(index_page.html({'images': images}).encode()) <= 300_000
