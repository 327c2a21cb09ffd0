"""A headless Chromium of the system, driven by playwright; tests skip without either.

LDM_JAX_SCREENSHOTS=FOLDER keeps the pictures that the tests take.
"""

import contextlib
import io
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
# Pictures of WebGL without a GPU.
FLAGS = ('--no-sandbox', '--use-angle=swiftshader', '--enable-unsafe-swiftshader')
SIZES = {'desk': (1280, 900), 'telephone': (390, 844)}


@contextlib.contextmanager
def launched():
  """A browser whose `new_page` opens tabs; skips the test where there is none."""
  sync = pytest.importorskip('playwright.sync_api', reason='playwright is missing')
  path = next(filter(None, map(shutil.which, NAMES)), None)
  if path is None:
    pytest.skip(f'no Chromium: none of {", ".join(NAMES)} is installed')
  with sync.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
    yield browser
    browser.close()


def tab(browser, size, faults, **options):
  """A new tab of one of SIZES; what goes wrong in the page is put into `faults`."""
  width, height = SIZES[size]
  page = browser.new_page(viewport={'width': width, 'height': height}, **options)
  page.set_default_timeout(240_000)
  page.on('pageerror', lambda error: faults.append(str(error)))
  page.on('console', lambda told: told.type == 'error' and faults.append(told.text))
  page.on('request', lambda asked: _check_own(asked.url, faults))
  return page


def picture(element, name):
  """(h,w,3) float of what the browser shows of a page or an element."""
  content = element.screenshot()
  if folder := os.environ.get('LDM_JAX_SCREENSHOTS'):
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    pathlib.Path(folder, f'{name}.png').write_bytes(content)
  return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'), float)


def is_cut(page):
  """Whether the page is wider than the window."""
  return page.evaluate('document.documentElement.scrollWidth > window.innerWidth')


def _check_own(url, faults):
  own = ('http://127.0.0.1:', 'file:', 'data:', 'blob:')
  if not url.startswith(own):
    faults.append(f'the page asked for {url}')
