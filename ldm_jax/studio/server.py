"""Serves the studio's page to this machine alone: requests -> calls of a model.

`guarded` is the outer wall. Whoever lacks the token of the URL, names the server by
another host (DNS rebinding) or comes from a page of another origin gets an empty 404.
One model call runs at a time; a request whose page has moved on is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.resources
import json
import math
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import anyio
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.readers import volume
from ldm_jax.report.privacy_statement import statement
from ldm_jax.sharing import asking
from ldm_jax.sharing.dataset import header_note
from ldm_jax.sharing.shared_model import SharedModel
from ldm_jax.studio import drawing, scans

ADDRESS = '127.0.0.1'
# Names of this machine that a browser may have used; a tunnel may have another port.
HOSTS = ('127.0.0.1', 'localhost', '::1')
# What a browser says of requests that its user or the page itself makes.
SITES = ('same-origin', 'none')
MAX_QUESTION = 2**16  # bytes of a request in JSON
TYPES = {
  'index.html': 'text/html; charset=utf-8',
  'studio.css': 'text/css',
  'studio.js': 'text/javascript',
  'niivue.umd.js': 'text/javascript',
  'niivue.LICENSE.txt': 'text/plain; charset=utf-8',
}
HEADERS = (
  # blob: and data: are pictures and workers that the viewer makes of its own code.
  (
    'content-security-policy',
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'",
  ),
  ('cross-origin-opener-policy', 'same-origin'),
  ('cross-origin-resource-policy', 'same-origin'),
  ('referrer-policy', 'no-referrer'),
  ('x-content-type-options', 'nosniff'),
  ('cache-control', 'no-store'),
)


class Session:
  """What the page works with: a model, its samplers, and one scan in memory.

  Attributes:
    model: is drawn from and edits.
    samplers: of the model.
    scan: that the user loaded last, or None.
    busy, reading: held while the model computes, and while a scan is read.
  """

  def __init__(self, model: SharedModel):
    self.model = model
    self.samplers = drawing.Samplers(model)
    self.scan: scans.Scan | None = None
    self.busy, self.reading = asyncio.Lock(), asyncio.Lock()

  async def about(self, request: Request) -> Response:
    """What the page shows before anything is drawn."""
    return JSONResponse(described(self.model))

  async def values(self, request: Request) -> Response:
    """Attributes drawn at random, as of `SharedModel.sample`."""
    text = request.query_params.get('seed', '')
    if not text.isdecimal() or int(text) > drawing.MAX_SEED:
      raise ValueError(f'seed is {text!r}, expected a whole number.')
    vector = self.model.requests(1, seed=int(text))[0]
    return JSONResponse(_finite(self.model.schema.decode(vector)))

  async def draw(self, request: Request) -> Response:
    """A volume as NIfTI."""
    asked = await _question(request)
    chosen = drawing.settings(self.model, asked)
    values = _values(asked, 'values')
    # Waits for its own program alone, not for others that are still compiled.
    await anyio.to_thread.run_sync(self.samplers.compiled, chosen)
    array = await self._computed(request, self.samplers.draw, values, chosen)
    if array is None:
      return Response(status_code=499)
    return _nifti(array, self.model.affine, None, _note(self.model, ''))

  async def load(self, request: Request) -> Response:
    """Takes a scan into memory, in place of the one before; answers its volume."""
    content = await _body(request, scans.MAX_BYTES)
    async with self.reading:  # one of them fits into memory
      self.scan = None
      read = functools.partial(scans.read, content, self.model)
      self.scan = await anyio.to_thread.run_sync(read)
    found = self.scan.volume
    return _nifti(found.array, found.affine, found.source, '')

  async def forget(self, request: Request) -> Response:
    """Drops the scan from memory."""
    self.scan = None
    return JSONResponse({})

  async def edit(self, request: Request) -> Response:
    """The loaded scan with other attributes, on its own grid, as NIfTI."""
    scan, asked = self.scan, await _question(request)
    if scan is None:
      raise ValueError('There is no scan in memory; load one first.')
    own, wanted = _values(asked, 'own'), _values(asked, 'values')
    changed = {name: value for name, value in wanted.items() if own.get(name) != value}

    def edit():
      edited = self.model.edit(scan.x, own=own, seed=0, **changed)
      # What the way to the model's grid and back would lose stays as it was.
      back = preprocess.invert(edited, scan.record)
      same = preprocess.invert(scan.x, scan.record)
      return scan.volume.array + (back.array - same.array)

    array = await self._computed(request, edit) if changed else scan.volume.array
    if array is None:
      return Response(status_code=499)
    found = scan.volume
    return _nifti(
      array, found.affine, found.source, _note(self.model, 'edit of a scan')
    )

  async def prepare(self) -> None:
    """Compiles what will be drawn, while what is ready can be drawn already."""
    for chosen in self.samplers.to_compile():
      await anyio.to_thread.run_sync(self.samplers.compiled, chosen)

  async def _computed(self, request, function, *arguments):
    """Result of a function in a thread, or None when nobody waits for it any more."""
    async with self.busy:
      if await request.is_disconnected():
        return None
      return await anyio.to_thread.run_sync(lambda: function(*arguments))


def application(model: SharedModel, token: str) -> ASGIApp:
  """The studio of a model as an ASGI application, below the path /<token>/."""
  session = Session(model)
  folder = importlib.resources.files('ldm_jax.studio') / 'static'
  files = {name: folder.joinpath(name).read_bytes() for name in TYPES}

  async def file(request: Request) -> Response:
    name = request.path_params.get('name', 'index.html')
    if name not in files:
      return Response(status_code=404)
    return Response(files[name], media_type=TYPES[name])

  @contextlib.asynccontextmanager
  async def lifespan(app: Starlette) -> AsyncIterator[None]:
    task = asyncio.create_task(session.prepare())
    yield
    task.cancel()

  routes = [
    Route('/', file),
    Route('/static/{name}', file),
    Route('/about', session.about),
    Route('/values', session.values),
    Route('/draw', session.draw, methods=['POST']),
    Route('/scan', session.load, methods=['POST']),
    Route('/scan', session.forget, methods=['DELETE']),
    Route('/edit', session.edit, methods=['POST']),
  ]
  refusals: Any = {ValueError: _refused}
  app = Starlette(routes=routes, exception_handlers=refusals, lifespan=lifespan)
  return guarded(app, token)


def guarded(app: ASGIApp, token: str) -> ASGIApp:
  """An application that answers this machine's user alone, see the module."""

  async def guard(scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] == 'lifespan':
      return await app(scope, receive, send)
    if scope['type'] != 'http' or not _is_user(scope, token):
      if scope['type'] == 'http':
        await Response(status_code=404)(scope, receive, send)
      return None

    async def answer(message):
      if message['type'] == 'http.response.start':
        more = [(name.encode(), value.encode()) for name, value in HEADERS]
        message = {**message, 'headers': [*message['headers'], *more]}
      await send(message)

    rest = scope['path'][len(token) + 1 :]
    inside = {**scope, 'path': rest, 'raw_path': rest.encode()}
    return await app(inside, receive, answer)

  return guard


def _is_user(scope: Scope, token: str) -> bool:
  headers: dict[str, list[str]] = {}
  for name, value in scope['headers']:
    headers.setdefault(name.decode('latin-1'), []).append(value.decode('latin-1'))
  if len(headers.get('host', ())) != 1:
    return False
  host = headers['host'][0]
  try:
    named = urlsplit(f'//{host}').hostname
  except ValueError:
    return False
  if named not in HOSTS:
    return False
  if any(origin != f'http://{host}' for origin in headers.get('origin', ())):
    return False
  if any(site not in SITES for site in headers.get('sec-fetch-site', ())):
    return False
  first, slash, _ = scope['path'].removeprefix('/').partition('/')
  return bool(slash) and secrets.compare_digest(first.encode(), token.encode())


def serve(
  model: SharedModel, port: int = 0, announce: Callable[[str], Any] = print
) -> None:
  """Serves until it is interrupted.

  Args:
    model: of `open_model.load` or `internal.open_workdir`.
    port: 0 for any that is free.
    announce: gets a line with the URL and its token.

  Raises:
    OSError: the port is taken.
  """
  token = secrets.token_urlsafe(24)
  listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
  with listening:
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((ADDRESS, port))
    number = listening.getsockname()[1]
    # No log of requests: their paths have the token.
    config = uvicorn.Config(
      application(model, token),
      access_log=False,
      log_level='warning',
      server_header=False,
      proxy_headers=False,
      timeout_graceful_shutdown=2,
    )
    announce(f'Studio: http://{ADDRESS}:{number}/{token}/ (Ctrl-C ends it)')
    uvicorn.Server(config).run(sockets=[listening])


def described(model: SharedModel) -> dict[str, Any]:
  """What the page needs of a model, JSON-able."""
  said, about = statement(model.privacy), model.about
  return {
    'name': about['name'],
    'model': about['model'],
    'warning': about['warning'],
    'internal': bool(about.get('internal')),
    'attributes': [
      {
        'name': each.name,
        'kind': each.kind,
        'unit': each.unit,
        'low': each.low,
        'high': each.high,
        'categories': list(map(str, each.categories)),
        'labels': list(map(str, each.labels or each.categories)),
      }
      for each in model.schema
    ],
    'sample': {
      'steps': model.config.sample.steps,
      'steps_offered': drawing.steps_of(model),
      'quick_steps': drawing.QUICK_STEPS,
      'guidance': float(model.config.sample.guidance),
      'guidance_limits': drawing.GUIDANCE,
    },
    'drift': drawing.drift_control(model),
    'max_bytes': scans.MAX_BYTES,
    'known': [asking.described(each) for each in model.schema],
    'privacy': {
      'private': said.private,
      'headline': said.headline,
      'warnings': said.warnings,
      'sections': said.sections,
      'file': _finite(model.privacy),
    },
  }


def _note(model, what):
  note = header_note(model.about)
  if what:
    note = note.replace('SYNTHETIC volume', f'SYNTHETIC {what}').replace(
      ', of no person', ''
    )
  return f'INTERNAL. {note}' if model.about.get('internal') else note


def _nifti(array, affine, source, note):
  content = volume.to_bytes(array.astype(np.float32), affine, source, note)
  return Response(content, media_type='application/octet-stream')


def _values(asked: Mapping[str, Any], name: str) -> dict[str, Any]:
  """Attribute -> value of a request; those that are null are left out."""
  found = asked.get(name) or {}
  if not isinstance(found, dict):
    raise ValueError(f'{name} is {found!r}, expected an object of values.')
  for key, value in found.items():
    if value is not None and (isinstance(value, bool) or not _is_scalar(value)):
      raise ValueError(f'{key} is {value!r}, expected a number or a category.')
  return {key: value for key, value in found.items() if value is not None}


def _is_scalar(value):
  return isinstance(value, str | int | float)


async def _question(request: Request) -> dict[str, Any]:
  """The JSON object of a request."""
  content = await _body(request, MAX_QUESTION)
  try:
    found = json.loads(content)
  except (ValueError, RecursionError) as error:
    raise ValueError(f'The request is no JSON ({error}).') from error
  if not isinstance(found, dict):
    raise ValueError('The request is no JSON object.')
  return found


async def _body(request: Request, most: int) -> bytes:
  """The body of a request, read no further than `most` bytes."""
  content = bytearray()
  async for part in request.stream():
    content += part
    if len(content) > most:
      raise ValueError(f'What was sent has more than {most} bytes.')
  return bytes(content)


async def _refused(request: Request, error: Exception) -> Response:
  return JSONResponse({'error': str(error)}, status_code=400)


def _finite(value: Any) -> Any:
  """A JSON-able value in which numbers that JSON lacks are texts."""
  if isinstance(value, dict):
    return {key: _finite(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(item) for item in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value
