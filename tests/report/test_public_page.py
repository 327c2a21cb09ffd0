"""Laws of the pages that leave: nothing internal, no scan, no count beside them."""

import json

import numpy as np

from ldm_jax.report import index_page, model_card, public_page

INTERNAL = {'value': 7391.5, 'n': 7391, 'reads': ['test'], 'internal': True}
CONTENT = {
  'title': 'A',
  'metrics': {
    'frechet': INTERNAL,
    'baseline_real_real': {'frechet': INTERNAL, 'n': 7391},
    'kid': {'value': 7391.5, 'reads': ['private']},
    'ms_ssim': {'real': INTERNAL, 'synthetic': {'value': 0.25, 'n': 4, 'reads': []}},
    'control': {'AGE': {'pearson_r': 0.5, 'n': 4}, 'SEX': INTERNAL},
  },
  'privacy': {'epsilon': 1},
  'log': [
    {'stage': 'adapt', 'step': 1, 'loss': 73.91},
    {'stage': 'diffusion', 'step': 1, 'loss': 1.0, 'time': 1739100000.5},
  ],
  'images': {
    'real': np.full((2, 2, 8, 8), 0.7391),
    'synthetic': np.random.default_rng(0).random((2, 2, 8, 8)),
    'counterfactuals': [(np.zeros((2, 8, 8)),) * 3 + ('P7391: AGE +10',)],
    'internal': ['counterfactuals'],
  },
  'control': {'AGE': ([1.0, 2.0], [1.0, 2.0]), 'SEX': ([73.91], [1.0])},
  'models': {'samples': 'm', 'counterfactuals': 'x7391'},
  'config': {'data': {'root': '/scans/7391'}},
}


def public(warning=''):
  return public_page.public(
    CONTENT, config={'seed': 0}, privacy={'epsilon': 1}, warning=warning
  )


def test_what_is_internal_and_the_counts_beside_it_are_gone():
  metrics = public()['metrics']
  assert metrics == {
    'ms_ssim': {'synthetic': {'value': 0.25, 'n': 4, 'reads': []}},
    'control': {'AGE': {'pearson_r': 0.5, 'n': 4}},
  }
  assert '7391' in json.dumps(CONTENT['metrics'])


def test_pages_show_synthetic_volumes_alone_and_no_private_loss():
  shown = public()
  assert set(shown['images']) == {'synthetic'} and set(shown['control']) == {'AGE'}
  assert shown['log'] == [{'stage': 'diffusion', 'step': 1, 'loss': 1.0}]
  for text in (index_page.html(shown), model_card.markdown(shown)):
    assert '7391' not in text and 'badge"' not in text


def test_a_model_that_protects_nobody_says_so_on_every_page():
  shown = public('NOT PRIVATE, because')
  for text in (index_page.html(shown), model_card.markdown(shown)):
    assert 'NOT PRIVATE, because' in text
