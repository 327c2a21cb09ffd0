"""Laws of turned latents: volume and latent move alike, and few examples do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ldm_jax.config.defaults import defaults
from ldm_jax.training import autoencoder_loss, equivariance, networks
from ldm_jax.training.packing import Packing
from ldm_jax.training.state import flatten, unflatten


def section(**changes):
  found = defaults().autoencoder.equivariance
  found.update(changes)
  return found


def blobs(side, num=3):
  """(num,2,side,side,1): a smooth blob off the centre, in units of the whole plane."""
  at = (np.arange(side) + 0.5) / side
  bump = np.exp(-(((at[:, None] - 0.35) ** 2 + (at[None] - 0.55) ** 2) / 0.03))
  return jnp.asarray(
    np.broadcast_to(bump[None, None, :, :, None], (num, 2, side, side, 1))
  )


KEYS = jax.random.split(jax.random.key(0), 3)


def test_a_volume_and_its_latent_move_alike():
  x, z = equivariance.transform(blobs(64), blobs(16), KEYS, section(share=1.0))
  small = x.reshape(3, 2, 16, 4, 16, 4, 1).mean((3, 5))
  assert np.abs(x - blobs(64)).max() > 0.1
  np.testing.assert_allclose(small, z, atol=0.06)


def test_without_a_share_nothing_moves():
  x, z = equivariance.transform(blobs(16), blobs(4), KEYS, section(share=0.0))
  np.testing.assert_allclose(x, blobs(16), atol=1e-6)
  np.testing.assert_allclose(z, blobs(4), atol=1e-6)


def test_a_quarter_turn_is_exact(monkeypatch):
  quarter = jnp.array([[0.0, -1.0], [1.0, 0.0]])
  monkeypatch.setattr(equivariance, '_matrix', lambda *_: quarter)
  x, _ = equivariance.transform(blobs(8), blobs(4), KEYS, section())
  np.testing.assert_allclose(x, jnp.rot90(blobs(8), -1, (2, 3)), atol=1e-5)


def test_a_share_of_the_examples_moves():
  keys = jax.random.split(jax.random.key(1), 400)
  x, _ = equivariance.transform(blobs(8, 400), blobs(4, 400), keys, section(share=0.25))
  moved = np.abs(x - blobs(8, 400)).max((1, 2, 3, 4)) > 1e-4
  assert 0.18 < moved.mean() < 0.32


def test_nothing_moves_once_the_decoder_learns_alone():
  x, _ = equivariance.transform(
    blobs(16), blobs(4), KEYS, section(share=1.0), jnp.asarray(False)
  )
  np.testing.assert_allclose(x, blobs(16), atol=1e-6)


def test_the_last_steps_change_the_decoder_alone():
  """Muon and momentum would move an encoder that has no gradient."""
  options = defaults().autoencoder
  model = {'patch': (), 'channels': (8, 8), 'norm_groups': 4, 'latent_channels': 2}
  options.model.update(model)
  options.steps, options.equivariance.share = 4, 0.5
  options.equivariance.until = 0.5
  module = networks.autoencoder(options)
  x = blobs(8)
  params = flatten(module.init(jax.random.key(0), x, jax.random.key(1))['params'])
  packing = Packing(params, apart=autoencoder_loss.APART)
  optimizer = autoencoder_loss.optimizer(options, packing)
  losses = packing.losses(autoencoder_loss.example_losses(module, options))

  @jax.jit
  def step(packed, state, number):
    loss = lambda packed: losses(packed, {}, {'x': x}, KEYS, number)[0].mean()
    updates, state = optimizer.update(jax.grad(loss)(packed), state, packed)
    return optax.apply_updates(packed, updates), state

  packed = packing.pack(params)
  state, moved = optimizer.init(packed), []
  for number in range(4):
    before = packing.unpack(packed)
    packed, state = step(packed, state, number)
    after = packing.unpack(packed)
    moved.append({p.split('/')[0] for p in after if (after[p] != before[p]).any()})
  assert moved[1] == set(unflatten(params))
  assert moved[2] == moved[3] == {'decoder', 'post_quant_conv'}
