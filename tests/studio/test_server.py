"""Laws of the studio's server: this machine's user alone, and calls of the model."""

import asyncio
import importlib.resources
import json
import pathlib

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip('starlette', reason='needs the extra studio')
pytest.importorskip('uvicorn', reason='needs the extra studio')

import ldm_jax
from ldm_jax.data.readers import volume
from ldm_jax.data.readers.grid import centred_affine
from ldm_jax.studio import drawing, scans, server

TOKEN = 'the-token'
HOST = '127.0.0.1:8000'


def ask(app, path, body=b'', method='', **headers):
  """(status, headers, body) of one request, headers given with _ for -."""
  headers = {'host': HOST, **headers}
  pairs = [
    (name.replace('_', '-').encode(), value.encode())
    for name, value in headers.items()
    if value is not None
  ]
  scope = {
    'type': 'http',
    'http_version': '1.1',
    'method': method or ('POST' if body else 'GET'),
    'path': path.partition('?')[0],
    'raw_path': path.encode(),
    'query_string': path.partition('?')[2].encode(),
    'headers': pairs,
    'scheme': 'http',
    'server': ('127.0.0.1', 8000),
    'client': ('127.0.0.1', 1),
    'root_path': '',
  }
  sent, left = [], [body]

  async def receive():
    if left:
      return {'type': 'http.request', 'body': left.pop(), 'more_body': False}
    await asyncio.sleep(3600)

  async def send(message):
    sent.append(message)

  asyncio.run(app(scope, receive, send))
  start, *parts = sent
  content = b''.join(part.get('body', b'') for part in parts)
  return start['status'], dict(start['headers']), content


@pytest.fixture(scope='module')
def model(exported):
  return ldm_jax.load(exported / 'shareable.zip')


@pytest.fixture(scope='module')
def app(model):
  return server.application(model, TOKEN)


@pytest.fixture(scope='module')
def post(app):
  def send(path, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(app, f'/{TOKEN}/{path}', content, **headers)

  return send


def image_of(content):
  return nib.Nifti1Image.from_bytes(content)


@pytest.mark.parametrize(
  ('path', 'headers'),
  [
    ('/', {}),
    (f'/{TOKEN}', {}),
    (f'/{TOKEN}x/', {}),
    (f'/x/{TOKEN}/', {}),
    ('/wrong/about', {}),
    (f'/{TOKEN}/', {'host': 'evil.example:8000'}),
    (f'/{TOKEN}/', {'host': '127.0.0.1.evil.example'}),
    (f'/{TOKEN}/', {'host': '127.0.0.1@evil.example'}),
    (f'/{TOKEN}/', {'host': '[::1'}),
    (f'/{TOKEN}/', {'host': None}),
    (f'/{TOKEN}/about', {'origin': 'http://evil.example'}),
    (f'/{TOKEN}/about', {'origin': 'http://127.0.0.1:9999'}),
    (f'/{TOKEN}/about', {'origin': 'null'}),
    (f'/{TOKEN}/static/studio.js', {'sec_fetch_site': 'cross-site'}),
    (f'/{TOKEN}/static/studio.js', {'sec_fetch_site': 'same-site'}),
  ],
)
def test_who_has_no_token_or_comes_from_elsewhere_gets_nothing(app, path, headers):
  status, answered, body = ask(app, path, **headers)
  assert (status, body) == (404, b'') and set(answered) == {b'content-length'}


@pytest.mark.parametrize(
  'headers',
  [
    {},
    {'host': 'localhost:8123', 'origin': 'http://localhost:8123'},
    {'host': '[::1]:8000', 'sec_fetch_site': 'same-origin'},
    {'sec_fetch_site': 'none'},
  ],
)
def test_the_user_gets_the_page_with_its_policy(app, headers):
  status, answered, body = ask(app, f'/{TOKEN}/', **headers)
  assert status == 200 and b'studio.js' in body
  policy = answered[b'content-security-policy'].decode()
  assert "default-src 'none'" in policy and 'http' not in policy
  assert answered[b'referrer-policy'] == b'no-referrer'
  assert answered[b'cache-control'] == b'no-store'


def test_every_file_of_the_page_is_served_and_nothing_else(app):
  folder = importlib.resources.files('ldm_jax.studio') / 'static'
  assert {each.name for each in folder.iterdir()} == set(server.TYPES)
  for name in server.TYPES:
    assert ask(app, f'/{TOKEN}/static/{name}')[0] == 200
  for name in ('../server.py', '..%2fserver.py', 'x', ''):
    assert ask(app, f'/{TOKEN}/static/{name}')[0] == 404


def test_the_page_is_told_what_the_model_knows_and_guarantees(app, model):
  told = json.loads(ask(app, f'/{TOKEN}/about')[2])
  assert [each['name'] for each in told['attributes']] == list(model.schema.names)
  assert 'NOT PRIVATE' in told['warning'] and not told['internal']
  assert told['sample']['steps'] == model.config.sample.steps
  assert told['privacy']['file']['num_patients'] == model.privacy['num_patients']
  assert told['privacy']['headline'] and told['drift']['value'] is None


def test_random_values_can_be_asked_for(app, post, model):
  values = json.loads(ask(app, f'/{TOKEN}/values?seed=3')[2])
  decoded = model.schema.decode(model.requests(1, seed=3)[0])
  assert values == {name: decoded[name] for name in model.schema.names}
  assert ask(app, f'/{TOKEN}/values?seed=x')[0] == 400


def test_a_volume_is_what_the_model_draws_and_says_that_it_is_synthetic(post, model):
  status, _, body = post('draw', {'values': {'AGE': 60, 'SEX': None}, 'seed': 5})
  image = image_of(body)
  drawn = model.sample(1, seed=5, rest='unknown', AGE=60)[0]
  assert status == 200 and np.allclose(image.get_fdata().T, drawn, atol=1e-5)
  assert image.header['descrip'].item().startswith(b'SYNTHETIC volume')
  quick = image_of(post('draw', {'values': {'AGE': 60}, 'seed': 5, 'quick': True})[2])
  assert quick.shape == image.shape and np.array_equal(quick.affine, image.affine)


def test_a_scan_is_edited_on_its_own_grid_and_forgotten(post, app, tmp_path):
  path, shape = tmp_path / 'scan.nii.gz', (6, 20, 18)
  array = 100 * np.random.default_rng(0).random(shape).astype(np.float32)
  volume.write(path, array, centred_affine(shape, (16.0, 11.0, 11.0)))
  body = path.read_bytes()
  loaded = image_of(post('scan', body)[2])
  assert np.allclose(loaded.get_fdata(), nib.load(path).get_fdata())
  same = image_of(post('edit', {'own': {'AGE': 50}, 'values': {'AGE': 50}})[2])
  assert np.allclose(same.get_fdata(), loaded.get_fdata())
  status, _, body = post('edit', {'own': {'AGE': 50}, 'values': {'AGE': 80}})
  changed = image_of(body)
  assert status == 200 and np.array_equal(changed.affine, loaded.affine)
  assert np.abs(changed.get_fdata() - loaded.get_fdata()).max() > 1e-3
  assert changed.header['descrip'].item().startswith(b'SYNTHETIC edit of a scan')
  assert ask(app, f'/{TOKEN}/scan', method='DELETE')[0] == 200
  status, _, body = post('edit', {'values': {'AGE': 80}})
  assert status == 400 and b'load one first' in body


@pytest.mark.parametrize(
  ('path', 'body', 'says'),
  [
    ('draw', {'values': {'AGE': 900}}, 'AGE'),
    ('draw', {'values': {'AGE': [60]}}, 'expected a number or a category'),
    ('draw', {'values': {'HEIGHT': 1}}, 'no attribute'),
    ('draw', {'values': 3}, 'expected an object'),
    ('draw', {'steps': 3}, 'steps is 3'),
    ('draw', b'{', 'no JSON'),
    ('draw', b'[' * 60_000, 'no JSON'),
    ('draw', b'[1]', 'no JSON object'),
    ('draw', b' ' * (server.MAX_QUESTION + 1), 'more than'),
    ('scan', b'hello', 'cannot be read as NIfTI'),
  ],
)
def test_what_cannot_be_done_is_a_sentence(post, path, body, says):
  status, _, content = post(path, body)
  assert status == 400 and says in json.loads(content)['error']


def test_an_upload_is_read_no_further_than_its_limit(app, monkeypatch):
  monkeypatch.setattr(scans, 'MAX_BYTES', 10)
  parts, taken = [bytes(8)] * 100, []

  async def receive():
    taken.append(1)
    return {'type': 'http.request', 'body': parts.pop(), 'more_body': True}

  async def send(message):
    taken.append(message)

  scope = {'type': 'http', 'method': 'POST', 'path': f'/{TOKEN}/scan', 'headers': []}
  scope['headers'] = [(b'host', HOST.encode())]
  asyncio.run(app({**scope, 'query_string': b'', 'root_path': ''}, receive, send))
  assert taken[:2] == [1, 1] and taken[2]['status'] == 400


def test_a_request_whose_page_has_moved_on_is_dropped(model, monkeypatch):
  session = server.Session(model)
  called = []

  class Gone:
    async def is_disconnected(self):
      return True

  result = asyncio.run(session._computed(Gone(), called.append, 1))
  assert result is None and called == []


def test_the_start_compiles_what_the_page_draws_first(model, monkeypatch):
  made = []
  monkeypatch.setattr(
    drawing.Samplers, 'compiled', lambda _, chosen: made.append(chosen)
  )
  asyncio.run(server.Session(model).prepare())
  assert made == drawing.Samplers(model).to_compile()


def test_the_viewer_is_the_published_file_with_its_licence():
  import hashlib

  folder = pathlib.Path(server.__file__).parent / 'static'
  content = (folder / 'niivue.umd.js').read_bytes()
  told = (folder / 'niivue.LICENSE.txt').read_text()
  assert hashlib.sha256(content).hexdigest() in told
  assert f'{len(content):,} bytes' in told and 'BSD 2-Clause' in told
