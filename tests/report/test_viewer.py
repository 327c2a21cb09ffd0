"""The report in a browser: three planes, the switch, a telephone, dark mode."""

import numpy as np
import pytest

from ldm_jax.report import index_page
from tests import browser

# Each voxel has its own place in its value: z, y and x tell their plane apart.
Z, Y, X = np.meshgrid(np.arange(6), np.arange(8), np.arange(10), indexing='ij')
VOLUME = (40 * Z + 5 * Y + X)[None].astype(np.float32)
COUNTERFACTUALS = [(VOLUME[0], VOLUME[0] + 5, np.full_like(VOLUME[0], 5), 'AGE +10')]


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  images = {
    'real': VOLUME,
    'synthetic': np.repeat(VOLUME, 8, 0),
    'sweeps': {'AGE': (range(5), np.repeat(VOLUME, 5, 0))},
    'counterfactuals': COUNTERFACTUALS,
    'internal': ['counterfactuals'],
  }
  content = {
    'title': 'A report',
    'images': images,
    'spacing': (4.0, 1.0, 2.0),
    'config': {'secret': 'of the settings'},
    'metrics': {'kid': {'value': 73.91, 'n': 4, 'internal': True}},
  }
  target = tmp_path_factory.mktemp('report') / 'index.html'
  return index_page.write(target, content)


@pytest.fixture(scope='module')
def chromium():
  with browser.launched() as found:
    yield found


def pixels(page, plane):
  """(h,w) grey values of a plane of the first viewer."""
  script = """(plane) => {
    const canvas = document.querySelectorAll('.viewer canvas')[plane];
    const {width, height} = canvas;
    const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
    return [width, height, [...data].filter((_, i) => i % 4 === 0)];
  }"""
  width, height, values = page.evaluate(script, plane)
  return np.array(values).reshape(height, width)


@pytest.mark.parametrize('size', browser.SIZES)
def test_planes_are_those_of_the_volume_and_nothing_is_cut(chromium, path, size):
  faults = []
  scheme = 'dark' if size == 'telephone' else 'light'
  page = browser.tab(chromium, size, faults, color_scheme=scheme)
  page.goto(path.as_uri())
  page.wait_for_selector('.viewer[data-at]')
  z, y, x = map(int, page.get_attribute('.viewer', 'data-at').split(','))
  # Sheets have anterior at the top: their row y is the volume's row 7 - y.
  low, high = VOLUME.min(), VOLUME.max()
  expected = [
    VOLUME[0, z, ::-1],
    VOLUME[0, ::-1, 7 - y],
    VOLUME[0, ::-1, :, x],
  ]
  for plane, values in enumerate(expected):
    shown = pixels(page, plane)
    assert shown.shape == values.shape
    grey = 255 * (values - low) / (high - low)
    assert np.corrcoef(shown.ravel(), grey.ravel())[0, 1] > 0.999
  box = page.locator('.viewer canvas').nth(1).bounding_box()
  assert box['width'] / box['height'] == pytest.approx(10 * 2 / (6 * 4), rel=0.05)
  # A click into a plane moves the others.
  page.locator('.viewer canvas').nth(0).click(position={'x': 1, 'y': 1})
  assert page.get_attribute('.viewer', 'data-at') == f'{z},0,0'
  assert not browser.is_cut(page)
  right = page.evaluate(
    '() => [...document.images].map((image) => image.getBoundingClientRect().right)'
  )
  assert max(right) <= browser.SIZES[size][0]
  tops = page.evaluate(
    "() => [...document.querySelectorAll('#control .strip > div')]"
    '.map((column) => column.offsetTop)'
  )
  assert len(tops) == 5 and len(set(tops)) == 1, 'a sweep stands in one row'
  assert page.locator('nav a').count() == len(index_page.SECTIONS)
  dark = page.evaluate('() => getComputedStyle(document.body).backgroundColor')
  assert (dark == 'rgb(255, 255, 255)') == (scheme == 'light')
  browser.picture(page, f'report-{size}')
  page.close()
  assert faults == []


def test_a_copy_without_internal_parts_has_none_of_them(chromium, path):
  faults = []
  page = browser.tab(chromium, 'desk', faults)
  page.goto(path.as_uri())
  page.wait_for_selector('.viewer[data-at]')
  page.uncheck('#internal')
  assert not page.is_visible('tr.internal') and not page.is_visible('#config pre')
  with page.expect_download() as download:
    page.click('#without')
  with open(download.value.path(), encoding='utf-8') as file:
    copy = file.read()
  assert download.value.suggested_filename == 'report-without-internal-parts.html'
  for hidden in ('73.9', 'of the settings', 'sheet-difference', 'AGE +10'):
    assert hidden in path.read_text(encoding='utf-8') and hidden not in copy
  assert 'sheet-synthetic' in copy
  page.close()
  assert faults == []
