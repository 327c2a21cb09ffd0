"""Laws of the report page: self-contained, escaped, complete, degrading gracefully."""

import html.parser
import re

import numpy as np
import pytest

from ldm_jax.report import page

VOID = {'meta', 'img', 'input', 'br', 'hr', 'link'}
HOSTILE = '<script>alert("x")</script>$\\frac'


class Reader(html.parser.HTMLParser):
  """Checks nesting, gathers ids, links, sources and text."""

  def __init__(self):
    super().__init__()
    self.open, self.ids, self.sources, self.links = [], [], [], []
    self.tags, self.text = [], []

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    self.tags.append(tag)
    self.ids += [attributes['id']] if 'id' in attributes else []
    self.sources += [attributes['src']] if 'src' in attributes else []
    self.links += [attributes['href']] if 'href' in attributes else []
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    opened = self.open.pop()
    if opened != tag:
      raise ValueError(f'<{opened}> is closed by </{tag}>')

  def handle_data(self, data):
    self.text.append(data)


def read(document):
  reader = Reader()
  reader.feed(document)
  reader.close()
  return reader


@pytest.fixture(scope='module')
def content():
  rng = np.random.default_rng(0)
  x = rng.random((3, 4, 12, 12)).astype(np.float32)
  figure = {'value': 1.5, 'low': 1.2, 'high': 1.9, 'n_real': 30, 'n_synthetic': 20}
  agreement = {'pearson_r': 0.91, 'pearson_r_low': 0.8, 'pearson_r_high': 0.95}
  agreement |= {'mae': 7.25, 'mae_low': 6.0, 'mae_high': 8.0, 'bias': -1.0, 'n': 20}
  requested = rng.uniform(60, 200, 20)
  release = {'name': 'fine-tuning', 'mechanism': 'gaussian', 'noise_multiplier': 2.0}
  release |= {'sampling_probability': 0.1, 'steps': 50, 'clip_norm': 1.0}
  return {
    'title': HOSTILE,
    'config': {'name': HOSTILE},
    'metrics': {
      'frechet': {**figure, 'internal': True},
      'kid': figure,
      'ms_ssim': {'real': {'value': 0.4, 'n': 9}, 'synthetic': 0.45},
      'baseline_real_real': {'frechet': figure, 'n': 30, 'n_half': 15},
      'control': {HOSTILE: agreement, 'ESED': {'accuracy': 0.9, 'n': 20}},
      'memorisation': {
        'internal': True,
        'auc': 0.52,
        'auc_low': 0.45,
        'auc_high': 0.6,
        'fraction': 0.04,
        'fraction_low': 0.01,
        'fraction_high': 0.1,
        'expected': 0.05,
        'num_flagged': 1,
        'flagged': [{'synthetic': 3, 'train': 4, 'distance': 0.1, 'ratio': 0.8}],
        'distances': {'synthetic_train': 1.0, 'held_out_train': 1.1},
      },
      'features': {'name': HOSTILE, 'sha256': 'ab' * 32},
      'reconstruction': {'psnr': 27.5, 'ssim': {'value': 0.9, 'n': 3}},
      'something_new': {'inner': {'value': 0.123, 'n': 5}},
    },
    'privacy': {
      'unit': 'patient',
      'relation': 'add_or_remove_one',
      'epsilon': 3.0,
      'delta': 1e-5,
      'num_patients': 100,
      'releases': [release],
      'accountants': {'pld': 3.0, 'rdp': 3.2},
      'randomness': 'operating system entropy',
      'assumptions': [HOSTILE],
      'not_covered': ['the public cohort'],
    },
    'log': [
      {'stage': 'autoencoder', 'step': s, 'loss': 1 / s, 'time': 1.0}
      for s in (10, 20, 30, 20)
    ]
    + [{'stage': HOSTILE, 'step': 1, 'loss': 1.0}, {'stage': 'prepare', 'bad': 0}],
    'images': {
      'real': x,
      'reconstructed': x,
      'synthetic': x[:, :3],
      'sweeps': {HOSTILE: ([1, 2, 3], x)},
      'counterfactuals': [(x[0], x[1], x[1] - x[0], HOSTILE)],
      'internal': ['real'],
    },
    'control': {HOSTILE: (requested, requested + 3)},
  }


@pytest.fixture(scope='module')
def document(content):
  return page.page(content)


def test_the_page_is_well_formed_with_every_section(document):
  reader = read(document)
  assert reader.open == []
  names = [key for key, _, _ in page.SECTIONS]
  assert [i for i in reader.ids if i in names] == names
  assert {f'#{name}' for name in names} <= set(reader.links)
  assert len(reader.ids) == len(set(reader.ids))


def test_the_page_loads_nothing_from_elsewhere(document):
  reader = read(document)
  assert reader.sources
  assert all(source.startswith('data:image/png;base64,') for source in reader.sources)
  assert all(link.startswith('#') for link in reader.links)
  assert not re.search(r'https?://|@import|url\(', document)
  assert "default-src 'none'" in document


def test_text_from_users_is_never_read_as_markup(document):
  assert '<script>alert' not in document
  assert read(document).tags.count('script') == 1
  assert document.count('&lt;script&gt;alert') >= 6


def test_figures_of_the_metrics_stand_in_the_page(document):
  text = ' '.join(read(document).text)
  for expected in ('1.5 (1.2 to 1.9)', '0.91 (0.8 to 0.95)', '7.25 (6 to 8)', '0.123'):
    assert expected in text
  assert '30 real, 20 synthetic' in text
  assert 'n = 30, 15 per half' not in text  # The inner entry's own counts win.


def test_figures_that_saw_private_scans_are_marked(document, content):
  assert document.count('>internal</span>') > 4
  public = {'metrics': {'kid': content['metrics']['kid']}}
  assert '>internal</span>' not in page.page(public)


@pytest.mark.parametrize(
  'missing', ['privacy', 'metrics', 'images', 'log', 'control', 'config', 'title']
)
def test_every_part_may_be_missing(content, missing):
  reduced = {key: value for key, value in content.items() if key != missing}
  reader = read(page.page(reduced))
  assert [key for key, _, _ in page.SECTIONS if key not in reader.ids] == []


def test_an_empty_report_says_what_is_missing():
  text = ' '.join(read(page.page({})).text)
  for words in ('NOT private', 'No volumes', 'not measured', 'No counterfactuals'):
    assert words in text


def test_unknown_and_undefined_figures_do_not_break_the_page():
  metrics = {
    'frechet': {'value': float('nan'), 'low': None, 'high': float('inf')},
    'control': {'a': {'pearson_r': None, 'mae': 1.0, 'n': 1}, 'b': 'text'},
    'memorisation': {'features': {'auc': 0.5}, 'voxels': {'auc': 0.6}},
    'other': ['list', None],
  }
  text = ' '.join(read(page.page({'metrics': metrics, 'privacy': None})).text)
  assert 'In voxel space' in text
  assert 'nan' not in text


def test_write_leaves_one_file_with_the_page(tmp_path, content):
  path = page.write(tmp_path / 'report' / 'index.html', content)
  assert path.read_text(encoding='utf-8').startswith('<!DOCTYPE html>')
  assert [p.name for p in path.parent.iterdir()] == ['index.html']
