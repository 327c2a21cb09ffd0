"""A program that calls oneDNN is never offered to jax's cache; others are."""

import subprocess
import types

import pytest

from ldm_jax.models.conv import cache_guard, onednn
from tests.interpreters import environment, interpreters

NEEDS_ONEDNN = pytest.mark.skipif(
  not onednn.is_available(), reason='this jaxlib is not known to hold oneDNN'
)

# Compiles a convolution alone, with its gradient, per example and outside of jit, then
# two programs without: what a second process finds of them are hits.
PROGRAMS = """
from ldm_jax import main
main.set_up_jax()
import collections
import jax
import jax.numpy as jnp
from ldm_jax.models.conv.conv import choose_lowering, convolve
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name]))
assert choose_lowering('cpu', (8, 8, 8), (3, 3, 3)) in ('onednn', 'onednn_bfloat16')
x, kernel = jnp.ones((2, 8, 8, 8, 4)), jnp.ones((3, 3, 3, 4, 4))
loss = lambda kernel, x: jnp.sum(jnp.sin(convolve(x, kernel)))
gradient = jax.grad(loss)
one = lambda kernel, x: gradient(kernel, x[None])
jax.jit(convolve)(x, kernel)
jax.jit(gradient)(kernel, x)
jax.jit(jax.vmap(one, (None, 0)))(kernel, x)
convolve(x, kernel)
jax.jit(lambda x: jnp.sort(x) + 1)(x)
jax.jit(lambda x: jnp.cumsum(x) * 2)(x)
print(events['/jax/compilation_cache/cache_hits'])
"""


def compiled(python, cache):
  """(hits, what it says) of another process that offers all programs to the cache."""
  ran = subprocess.run(
    [python, '-W', 'error::UserWarning', '-c', PROGRAMS],
    env=environment(
      python,
      JAX_PLATFORMS='cpu',
      LDM_JAX_ONEDNN='1',
      LDM_JAX_KEEP_MEMORY='1',
      HOME=str(cache.parent),
      JAX_COMPILATION_CACHE_DIR=str(cache),
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
      JAX_RAISE_PERSISTENT_CACHE_ERRORS='1',
    ),
    capture_output=True,
    text=True,
  )
  assert ran.returncode == 0, ran.stderr[-2000:]
  return int(ran.stdout), ran.stderr


@NEEDS_ONEDNN
@pytest.mark.parametrize('python', interpreters())
def test_no_program_with_the_call_is_stored_and_all_others_are(python, tmp_path):
  cache = tmp_path / 'jax'
  _, told = compiled(python, cache)
  assert 'persistent' not in told
  stored = [path.name for path in cache.glob('*-cache')]
  assert not [n for n in stored if n.startswith(('jit_convolve', 'jit_loss'))]
  lambdas = [n for n in stored if n.startswith('jit__lambda')]
  assert len(lambdas) == 2
  hits, told = compiled(python, cache)
  assert hits >= len(stored)
  assert 'persistent' not in told


class Program:
  """An executable as jax has them."""

  def __init__(self, *texts):
    self.texts = texts

  def hlo_modules(self):
    return [types.SimpleNamespace(to_string=lambda t=t: t) for t in self.texts]


def test_a_program_that_does_not_tell_what_it_calls_counts_as_one_with_the_call():
  assert not cache_guard.holds_call(Program('add', 'custom_call_target="other"'))
  assert cache_guard.holds_call(Program('add', f'"{onednn.TARGET}"'))
  assert cache_guard.holds_call(Program())
  assert cache_guard.holds_call(object())


@pytest.mark.parametrize('change', ['moved', 'takes others', 'called otherwise'])
def test_where_jax_stores_otherwise_than_known_onednn_is_not_used(change, monkeypatch):
  from jax._src import compilation_cache, compiler

  name = 'put_executable_and_time'
  if change == 'moved':
    monkeypatch.delattr(compilation_cache, name)
  elif change == 'takes others':
    monkeypatch.setattr(compilation_cache, name, lambda key, program: None)
  else:
    monkeypatch.setattr(compiler, '_cache_write', lambda *all_of_it: None)
  before = getattr(compilation_cache, name, None)
  monkeypatch.setattr(cache_guard, 'install', cache_guard.install.__wrapped__)
  onednn.is_available.cache_clear()
  assert not onednn.is_available()
  onednn.is_available.cache_clear()
  assert getattr(compilation_cache, name, None) is before
