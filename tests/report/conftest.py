"""What a run and the doctor hand to the report, and a reader of pages."""

import html.parser

import numpy as np
import pytest

from ldm_jax.data.inspection import findings
from ldm_jax.report import doctor_text

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


@pytest.fixture(scope='session')
def read():
  """HTML document -> Reader of it."""
  return _read


def _read(document):
  reader = Reader()
  reader.feed(document)
  reader.close()
  return reader


@pytest.fixture(scope='session')
def content():
  """What a run with everything hands to the report, with hostile text."""
  rng = np.random.default_rng(0)
  x = rng.random((3, 4, 12, 12)).astype(np.float32)
  figure = {'value': 1.5, 'low': 1.2, 'high': 1.9, 'n_real': 30, 'n_synthetic': 20}
  agreement = {'pearson_r': 0.91, 'pearson_r_low': 0.8, 'pearson_r_high': 0.95}
  agreement |= {'mae': 7.25, 'mae_low': 6.0, 'mae_high': 8.0, 'bias': -1.0, 'n': 20}
  requested = rng.uniform(60, 200, 20)
  release = {'name': 'fine-tuning', 'mechanism': 'gaussian', 'noise_multiplier': 2.0}
  release |= {'sampling_probability': 0.1, 'steps': 50, 'clip_norm': 1.0}
  release['randomness'] = 'operating system'
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
      'two_sample': {
        'internal': True,
        'auc': 0.6,
        'auc_low': 0.45,
        'auc_high': 0.8,
        'num_real': 30,
        'num_synthetic': 20,
        'says_nothing': HOSTILE,
        'real_halves': {'auc': 0.5, 'auc_low': 0.2, 'auc_high': 0.8, 'internal': True},
      },
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


@pytest.fixture
def looks():
  """What was seen of a public and of a private cohort."""
  return {name: _look(name) for name in ('public', 'private')}


def _look(name):
  lists = (*doctor_text.HEADLINES, *doctor_text.TITLES)
  counts = {'name': name, 'patients': 3, 'records': 4, 'inspected': 4, 'with_labels': 1}
  attribute = {'summary': '30 to 60', 'missing': 1, 'out_of_range': 0}
  found = {
    'counts': counts,
    'shapes': {'8x8x8': 4},
    'spacings_mm': {'1 x 1 x 1': 4},
    'orientations': {'RAS': 4},
    'intensities': {'lowest': (0.0, 2.0), 'highest': None},
    'attributes': {'age': attribute},
    'groups': {'sex': {'F': 2, 'M': 1}},
    **{key: [] for key in lists},
  }
  return findings.Look(findings=found, thumbnails=[np.zeros((4, 4), np.uint8)])


@pytest.fixture
def plan():
  """doctor/plan.json of a run whose noise is louder than its signal."""
  stage = {'stage': 'adapt', 'parameters': 10, 'memory_bytes': 2**21, 'seconds': 5.0}
  stage |= {'note': '20 steps'}
  row = {'method': 'full', 'parameters': 1000, 'patients': 13, 'batch_size': 4}
  row |= {'noise_multiplier': 1.0, 'per_step': 300.0, 'per_run': 40.0}
  row |= {'verdict': doctor_text.MOSTLY_NOISE}
  prepare = {**stage, 'stage': 'prepare', 'parameters': 0, 'internal': True}
  return {
    'stages': [prepare, stage],
    'noise': [
      {**row, 'epsilon': 1, 'configured': False},
      {**row, 'epsilon': 10, 'configured': True},
      {**row, 'epsilon': 3, 'configured': False},
    ],
    'faults': [],
    'delta': 1e-5,
    'steps': 20,
  }


@pytest.fixture
def grid():
  """doctor/grid.json of a grid on which three of four scans keep few voxels."""
  now = {'shape': [8, 8, 8], 'spacing_mm': [4.0, 4.0, 4.0], 'kept': [4, 4, 4]}
  now |= {'inside': 0.9, 'poor': 3, 'seconds': 10.0}
  proposed = {**now, 'spacing_mm': [2.0, 2.0, 2.0], 'inside': 1.0, 'poor': 0}
  return {
    'scans': 4,
    'now': now,
    'proposed': proposed,
    'same': False,
    'fault': '',
    'command': 'ldm-jax --a\n  --b',
  }
