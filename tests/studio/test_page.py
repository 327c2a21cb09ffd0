"""The studio's page in a browser: what a user clicks, at a desk and on a telephone."""

import gzip
import queue
import threading

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip('starlette', reason='needs the extra studio')
pytest.importorskip('uvicorn', reason='needs the extra studio')

import ldm_jax
from ldm_jax.data.readers import volume
from ldm_jax.data.readers.grid import centred_affine
from ldm_jax.studio import server
from tests import browser

DONE = '#status[data-done="true"]'


@pytest.fixture(scope='module')
def model(exported):
  return ldm_jax.load(exported / 'shareable.zip')


@pytest.fixture(scope='module')
def url(model):
  """Of a studio that serves the model until the tests end."""
  said = queue.Queue()
  serve = lambda: server.serve(model, 0, said.put)
  threading.Thread(target=serve, daemon=True).start()
  return said.get(timeout=60).split()[1]


@pytest.fixture(scope='module')
def chromium():
  with browser.launched() as found:
    yield found


def changed(page, selector, value):
  """Sets a control and waits until the full sampler has drawn."""
  page.evaluate("() => { delete document.getElementById('status').dataset.done; }")
  page.fill(selector, value)
  page.wait_for_selector(DONE)


def redder(pixels):
  """How much more red than blue some pixel has: grey and crosshair have none."""
  return (pixels[..., 0] - pixels[..., 2]).max()


@pytest.mark.parametrize('size', browser.SIZES)
def test_a_user_draws_compares_edits_a_scan_and_reads_the_statement(
  chromium, url, model, size, tmp_path
):
  faults = []
  scheme = 'dark' if size == 'telephone' else 'light'
  page = browser.tab(chromium, size, faults, color_scheme=scheme)
  page.goto(url)
  page.wait_for_selector(DONE)
  first = browser.picture(page.locator('#shown .frame'), f'studio-{size}-drawn')
  assert first.std() > 5, 'the viewer shows nothing'
  assert 'NOT PRIVATE' in page.inner_text('#warning')
  names = page.locator('#rows .row').count()
  assert names == len(model.schema) and not browser.is_cut(page)

  # Two settings side by side, and their difference.
  page.click('#keep')
  changed(page, '#a-AGE', '80')
  changed(page, '#drift', '0.2')
  assert 'drift 0.20' in page.inner_text('#shown figcaption')
  changed(page, '#seed', '7')
  assert page.is_visible('#kept canvas')
  assert 'seed 7' in page.inner_text('#shown figcaption')
  assert 'full colour ±' in page.inner_text('#shown figcaption')
  coloured = browser.picture(page.locator('#shown .frame'), f'studio-{size}-compared')
  assert redder(coloured) > 60 > redder(first), 'the overlay has no colour'
  browser.picture(page, f'studio-{size}')

  # The download is the volume that is shown.
  with page.expect_download() as download:
    page.click('#download')
  assert download.value.suggested_filename == 'synthetic_seed7.nii.gz'
  with open(download.value.path(), 'rb') as file:
    image = nib.Nifti1Image.from_bytes(gzip.decompress(file.read()))
  assert image.header['descrip'].item().startswith(b'SYNTHETIC')
  assert image.shape == model.spec.shape[::-1]

  # What if: an own scan.
  path = tmp_path / 'scan.nii.gz'
  array = 100 * np.random.default_rng(0).random((6, 20, 18)).astype(np.float32)
  volume.write(path, array, centred_affine(array.shape, (16.0, 11.0, 11.0)))
  page.check('input[value=edit]')
  page.set_input_files('#file', str(path))
  page.wait_for_selector('#kept figcaption:has-text("scan.nii.gz")')
  page.wait_for_selector(DONE)
  page.fill('#own-AGE', '40')
  changed(page, '#a-AGE', '80')
  assert 'AGE 80' in page.inner_text('#shown figcaption')
  browser.picture(page, f'studio-{size}-edited')
  broken = {'name': 'x.nii', 'mimeType': '', 'buffer': b'hello'}
  page.set_input_files('#file', broken)
  page.wait_for_selector('#status.error:has-text("cannot be read as NIfTI")')
  # The answer 400 to the broken file is an error of the console, too.
  faults = [each for each in faults if '400 (Bad Request)' not in each]

  page.click('#privacy-open')
  assert page.inner_text('#privacy-text b') and page.is_visible('#privacy')
  browser.picture(page, f'studio-{size}-privacy')
  page.close()
  assert faults == []


def test_a_page_of_another_origin_can_neither_read_nor_embed_the_studio(chromium, url):
  page = chromium.new_page()
  page.route('http://evil.example/', lambda route: route.fulfill(body='<p>evil</p>'))
  page.goto('http://evil.example/')
  reads = """async (url) => {
    const read = fetch(url + 'about').then((r) => r.status, () => 'refused');
    const script = () => new Promise((done) => {
      const node = document.createElement('script');
      node.onload = () => done('loaded');
      node.onerror = () => done('refused');
      node.src = url + 'static/studio.js';
      document.head.append(node);
    });
    return [await read, await script()];
  }"""
  assert page.evaluate(reads, url) == ['refused', 'refused']
  page.close()
