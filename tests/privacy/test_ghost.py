"""Laws of factored gradients: the ordinary sum, and norms that are never too small."""

import os
import pathlib
import subprocess
import sys
from operator import itemgetter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import schedules
from ldm_jax.models.conv import onednn
from ldm_jax.models.conv.conv import Conv, LinearMap, choose_lowering
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.models.layers import Dense, Upsample
from ldm_jax.privacy import ghost
from ldm_jax.privacy.clipping import MARGIN
from ldm_jax.privacy.gradients import clipped_sum
from ldm_jax.training import denoising_loss
from ldm_jax.training.state import flatten, unflatten

pytestmark = pytest.mark.usefixtures('users_convolutions')

NUM_PATIENTS, NUM_VOLUMES = 3, 2
SMALL = {
  'channels': (8, 32),
  'num_res_blocks': 1,
  'norm_groups': 4,
  'num_head_channels': 8,
}
# kind, options, space of the latents
DENOISERS = {
  'unet': ('unet', SMALL | {'attention_levels': (False, True)}, (4, 4, 4)),
  'image': ('unet', SMALL | {'kernels': (3, 3), 'resblock_updown': True}, (8, 8)),
  'dit': ('dit', {'width': 32, 'num_blocks': 1, 'num_head_channels': 16}, (2, 4, 4)),
  'daum24': ('daum24', SMALL | {'attention_levels': (False, True)}, (3, 8, 8)),
}


class Twice(nn.Module):
  """One convolution met twice, then a dense layer."""

  remat: bool = False

  @nn.compact
  def __call__(self, x):
    conv = (nn.remat(Conv) if self.remat else Conv)(8, (3, 3), name='conv')
    return Dense(4, name='dense')(conv(nn.silu(conv(x))).mean((1, 2)))


class FastPaths(nn.Module):
  """One layer of each fast path of `models.conv.conv`."""

  @nn.compact
  def __call__(self, x):
    h = nn.silu(Conv(32, (3, 3, 3), name='conv')(x))
    h = nn.silu(Upsample(8, (3, 3, 3), (2, 2, 2), name='upsample')(h))
    h = nn.silu(Conv(64, (3, 3, 3), (4, 2, 2), name='strided')(h))
    return Dense(4, name='dense')(h.mean((1, 2, 3)))


def drawn(module, *inputs):
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)['params']
  draw = lambda leaf: jnp.asarray(rng.normal(0, 0.2, leaf.shape), leaf.dtype)
  return {path: draw(leaf) for path, leaf in flatten(shapes).items()}


def toy(module=None, penalty=0.0, shape=(3, 3, 8)):
  """(parameters, patients, loss) of `Twice`, or of a module, on inputs (n,*shape)."""
  module = module or Twice()
  x = jnp.asarray(np.random.default_rng(1).normal(size=(NUM_PATIENTS, *shape)), 'f4')

  def loss(trained, example, key):
    del key
    y = module.apply({'params': unflatten(trained)}, example[None])
    own = jnp.sum(trained['conv/kernel'] ** 2) if penalty else 0.0
    return jnp.sum(y**2) + penalty * own

  return drawn(module, x[:1]), x, loss


def denoiser(kind, options, space, num_examples=0):
  """(parameters, patients with two volumes, loss with two draws of noise)."""
  module = ConditionalDenoiser(
    (0, 2), 2, 2, {'width': 8}, options, kind, by=('attention', 'embedding')
  )
  rng = np.random.default_rng(0)
  shape = (NUM_PATIENTS, NUM_VOLUMES)
  patients = {
    'z': jnp.asarray(rng.normal(size=(*shape, *space, 2)), jnp.float32),
    'attributes': jnp.asarray(rng.integers(0, 2, (*shape, 2)), jnp.float32),
    'present': jnp.asarray([[True, True], [True, True], [True, False]]),
  }
  z, attributes = patients['z'][0], patients['attributes'][0]
  t, drop = jnp.zeros(2, jnp.int32), jnp.zeros(2, bool)
  losses = denoising_loss.denoising_losses(
    module, schedules.schedule('linear', 10, 1e-3, 0.1), 'epsilon', 0.1
  )
  loss = denoising_loss.patient_loss(losses, 2, num_examples)
  return (
    drawn(module, z, t, attributes, drop),
    patients,
    lambda trained, example, key: loss(trained, {}, example, key),
  )


def summed(params, patients, loss, method, clip_norm=0.05, keep=(True, False, True)):
  keys = jax.random.split(jax.random.key(1), NUM_PATIENTS)
  call = lambda p, b: clipped_sum(
    loss, p, b, np.array(keep), keys, clip_norm, 0, method
  )
  return jax.tree.map(np.asarray, jax.jit(call)(params, patients))


def ordinary(params, patients, loss, clip_norm=0.05, keep=(True, False, True)):
  """The same sum, patient by patient; clipped by NumPy."""
  keys = jax.random.split(jax.random.key(1), NUM_PATIENTS)
  gradient, total = jax.jit(jax.grad(loss)), {}
  for row in np.flatnonzero(keep):
    one = gradient(params, jax.tree.map(itemgetter(row), patients), keys[row])
    size = sum(np.square(leaf, dtype=np.float64).sum() for leaf in one.values())
    scale = min(1.0, (1 - MARGIN) * clip_norm / np.sqrt(size))
    total = {path: total.get(path, 0) + scale * leaf for path, leaf in one.items()}
  return total


def found(params, patients, loss):
  one = jax.tree.map(lambda leaf: leaf[0], patients)
  return ghost.find(loss, params, one, jax.random.key(0))


def assert_equal(ours, reference):
  whole = max(np.abs(value).max() for value in reference.values())
  for path, value in reference.items():
    scale = max(np.abs(value).max(), 1e-3 * whole)
    np.testing.assert_allclose(ours[path], value, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize('name', DENOISERS)
def test_the_ghost_sum_is_the_ordinary_one_on_every_denoiser(name):
  case = denoiser(*DENOISERS[name])
  assert found(*case)
  assert_equal(summed(*case, 'ghost'), ordinary(*case))


def test_the_ghost_sum_is_the_ordinary_one_where_a_step_draws_a_patients_volumes():
  case = denoiser(*DENOISERS['dit'], num_examples=1)
  some, every = summed(*case, 'ghost'), ordinary(*denoiser(*DENOISERS['dit']))
  assert_equal(some, ordinary(*case))
  assert any(np.abs(some[path] - every[path]).max() > 1e-3 for path in some)


def test_a_layer_met_twice_counts_with_both_its_calls():
  case = toy()
  assert len(found(*case)['conv/kernel'].outputs) == 2
  assert_equal(summed(*case, 'ghost'), ordinary(*case))


def test_a_kernel_that_the_loss_knows_otherwise_keeps_its_whole_gradient():
  case = toy(penalty=0.5)
  assert set(found(*case)) == {'dense/kernel'}
  assert_equal(summed(*case, 'ghost'), ordinary(*case))


def test_recomputed_layers_keep_their_whole_gradients():
  case = toy(Twice(remat=True))
  assert set(found(*case)) == {'dense/kernel'}
  assert_equal(summed(*case, 'ghost'), ordinary(*case))


def test_frozen_layers_have_no_factors():
  params, patients, loss = toy()
  bias = {'dense/bias': params['dense/bias']}
  rest = lambda trained, example, key: loss({**params, **trained}, example, key)
  assert found(bias, patients, rest) == {}
  assert set(summed(bias, patients, rest, 'ghost')) == {'dense/bias'}


def compare_fast_paths_with_plain_ones():
  """Called in a process of its own; prints the number of layers with ghost norms."""
  case = toy(FastPaths(), shape=(8, 4, 4, 32))
  fast, layers = summed(*case, 'auto'), found(*case)
  os.environ['LDM_JAX_FAST_CONV'] = '0'
  assert_equal(fast, summed(*case, 'auto'))
  print(len(layers))


def test_the_fast_paths_as_users_run_them_give_the_plain_gradients():
  folder = pathlib.Path(__file__).parent
  ours = ('LDM_JAX_', 'XLA_', 'JAX_')  # what tests set and users do not
  kept = {key: v for key, v in os.environ.items() if not key.startswith(ours)}
  done = subprocess.run(
    [
      *(sys.executable, '-c'),
      'import test_ghost; test_ghost.compare_fast_paths_with_plain_ones()',
    ],
    env=kept | {'JAX_PLATFORMS': 'cpu', 'JAX_DEFAULT_MATMUL_PRECISION': 'float32'},
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert int(done.stdout) > 0


@pytest.mark.skipif(
  not (onednn.is_available() and onednn.multiplies_bfloat16()),
  reason='this processor has no products of bfloat16',
)
@pytest.mark.parametrize('method', ['ghost', 'vmap'])
def test_products_in_bfloat16_leave_a_patient_no_more_influence(method):
  params, patients, loss = toy(FastPaths(), shape=(8, 4, 4, 32))
  with jax.default_matmul_precision('default'):
    assert choose_lowering('cpu', (4, 4, 32), (3, 3, 3)) == 'onednn_bfloat16'
    many = jnp.tile(patients[:1], (NUM_PATIENTS, *[1] * (patients.ndim - 1)))
    one = summed(params, many, loss, method, 1e-3, (True, False, False))
  norm = np.sqrt(sum(np.square(v, dtype=np.float64).sum() for v in one.values()))
  assert 0.99e-3 < norm <= 1e-3


def test_switched_off_no_layer_has_ghost_norms(monkeypatch):
  monkeypatch.setenv('LDM_JAX_FAST_CONV', '0')
  monkeypatch.setattr(ghost, 'find', None)  # not callable: must not be reached
  assert_equal(summed(*toy(), 'auto'), ordinary(*toy()))


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_patient_with_a_gradient_that_is_not_finite_contributes_zero(bad):
  params, patients, loss = toy()
  poisoned = patients.at[2, 0, 0, 0].set(bad)
  ours = summed(params, poisoned, loss, 'ghost')
  alone = summed(params, patients, loss, 'ghost', keep=(True, False, False))
  assert all(np.array_equal(ours[path], alone[path]) for path in params)


def exact_squares(layer, x, g):
  """Squared norms in float64, from windows (p,b,...,k) written out by NumPy alone."""
  x, g = x.astype(np.float64), g.astype(np.float64)
  if layer.size:
    added = [(max(low, 0), max(high, 0)) for low, high in layer.pairs]
    x = np.pad(x, ((0, 0), (0, 0), *added, (0, 0)))
    cut = [slice(max(-low, 0), min(high, 0) or None) for low, high in layer.pairs]
    x = x[(slice(None), slice(None), *cut)]
    axes = tuple(range(2, 2 + len(layer.size)))
    x = np.lib.stride_tricks.sliding_window_view(x, layer.size, axes)
    x = x[(slice(None), slice(None), *(slice(None, None, s) for s in layer.strides))]
    x = x.reshape(*g.shape[:-1], -1)
  u, g = (a.reshape(a.shape[0], -1, a.shape[-1]) for a in (x, g))
  return np.square(np.einsum('ptk,pto->pko', u, g)).sum((1, 2)), x


CUBE = ((3, 3, 3), (1, 1, 1), ((1, 1),) * 3)
KINDS = {
  'dense': ((), (), ()),
  'convolution': CUBE,
  'uneven': ((3, 1, 2), (1, 1, 1), ((0, 2), (0, 0), (1, 0))),
  'cropping': ((2, 3, 1), (1, 1, 1), ((-1, 1), (1, 1), (0, 0))),
  'strided': ((3, 3, 3), (2, 2, 2), ((1, 1),) * 3),
}


def drawn_factors(layer, spread, calls=1):
  """Inputs of nearly one direction, whose gradients sum to nearly nothing."""
  rng = np.random.default_rng(0)
  space = (4, 4, 6) if layer.size else (16,)
  out = space
  if layer.size:
    sides = zip(space, layer.size, layer.strides, layer.pairs, strict=True)
    out = [(n + sum(pair) - k) // s + 1 for n, k, s, pair in sides]
  x = 1 + spread * rng.normal(size=(16, calls, *space, 12 if layer.size else 96))
  g = rng.normal(size=(16, calls, *out, 32))
  g -= (1 - spread) * g.mean(tuple(range(1, g.ndim - 1)), keepdims=True)
  return x.astype(np.float32), g.astype(np.float32)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('spread', [1.0, 1e-2, 1e-4])
def test_a_squared_norm_is_never_understated_however_much_cancels(spread, kind):
  layer = ghost.Layer(LinearMap(*KINDS[kind]), ())
  x, g = drawn_factors(layer.map, spread)
  ours = np.asarray(ghost.squared_norms(layer, ((x, g),)), np.float64)
  exact, windows = exact_squares(layer.map, x, g)
  assert np.all(ours >= exact)
  # and overstated by rounding only, so that little is clipped in vain
  size = np.linalg.norm(windows, axis=-1) * np.linalg.norm(g, axis=-1)
  size = size.reshape(len(size), -1).sum(1)
  assert np.all(ours <= exact + 2**-21 * size**2)


@pytest.mark.parametrize('kind', ['convolution', 'strided'])
def test_windows_of_several_calls_count_with_each_other(kind):
  layer = ghost.Layer(LinearMap(*KINDS[kind]), ())
  x, g = drawn_factors(layer.map, 1.0, calls=3)
  calls = ((x[:, :1], g[:, :1]), (x[:, 1:], g[:, 1:]))
  ours, same = (
    np.asarray(ghost.squared_norms(layer, parts)) for parts in (calls, ((x, g),))
  )
  exact = exact_squares(layer.map, x, g)[0]
  np.testing.assert_allclose(ours, exact, rtol=1e-4)  # with the margin of rounding
  np.testing.assert_allclose(same, exact, rtol=1e-4)


def test_an_unknown_method_is_refused():
  with pytest.raises(ValueError, match=r'adapt\.privacy\.gradients'):
    summed(*toy(), 'fast')
