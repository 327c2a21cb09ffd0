"""Laws of the autoencoder's page: statistics, codes and alarms are all told."""

import numpy as np
import pytest

from ldm_jax.report import autoencoder_page

FIGURES = {
  'latent': {'mean': [0.0, 1.25], 'std': [1.0, 2.0]},
  'alarms': [],
  'reconstruction': {'psnr': 27.5},
}
VOLUMES = np.random.default_rng(0).random((2, 9, 2, 4, 4))


@pytest.fixture
def page(tmp_path, read):
  """(figures, events, banner) -> Reader of the page."""

  def write(figures=FIGURES, events=(), banner=''):
    path = tmp_path / 'autoencoder.html'
    autoencoder_page.write(path, 'x<y', {}, figures, VOLUMES, events, banner)
    return read(path.read_text(encoding='utf-8'))

  return write


def test_every_section_stands_and_only_eight_pictures_of_each(page):
  found = page()
  assert found.open == []
  assert [i for i in found.ids if 'sheet' not in i] == list(autoencoder_page.SECTIONS)
  text = ' '.join(found.text)
  assert 'x<y: autoencoder' in text and '27.5' in text
  assert 'Real 8' in text and 'Real 9' not in text
  assert 'No alarm was raised.' in text and 'codes are used' not in text


def test_alarms_and_the_codebook_are_told(page):
  alarms = [{'alarm': 'dead <codes>', 'step': 3}, {'alarm': 'of no step'}]
  codebook = {'used': 3, 'codes': 8, 'perplexity': 2.5}
  text = page({**FIGURES, 'alarms': alarms, 'codebook': codebook}).text
  assert 'step 3: dead <codes>' in text and 'of no step' in text
  assert any('3 of 8 codes are used, as evenly as 2.5 codes' in line for line in text)


def test_curves_are_those_of_the_autoencoder_alone(page):
  stages = ('perceptual', 'autoencoder', 'diffusion', 'adapt')
  text = page(events=[{'stage': s, 'step': 1, 'loss': 1.0} for s in stages]).text
  assert [t for t in text if t.endswith(': loss')] == [
    'perceptual: loss',
    'autoencoder: loss',
  ]


def test_the_banner_stands_above_everything(page):
  assert page(banner='Not <protected>').text.index('Not <protected>') < 20
