"""Two players in one step: whose gradient is what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.critics.discriminator import PatchDiscriminator
from ldm_jax.training import adversarial_loss

MODULE = PatchDiscriminator(channels=(4,), kernels=(1, 3, 3), strides=())
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.random((3, 2, 4, 4, 1)), jnp.float32)
X_HAT = jnp.asarray(RNG.random((3, 2, 4, 4, 1)), jnp.float32)
PARAMS = MODULE.init(jax.random.key(0), X)['params']


def reconstruction(x_hat):
  return 10 * jnp.square(x_hat - X).mean((1, 2, 3, 4))


def judged(params, x):
  (logits,) = MODULE.apply({'params': params}, x)
  return logits


@pytest.fixture(scope='module')
def gradients():
  """adaptive -> gradients with respect to x_hat and to the discriminator."""

  def of(adaptive, weight=0.3):
    def total(x_hat, params):
      return adversarial_loss.losses(
        MODULE, params, X, x_hat, reconstruction, weight, adaptive
      )[0].sum()

    return jax.jit(jax.grad(total, (0, 1)))(X_HAT, PARAMS)

  return {adaptive: of(adaptive) for adaptive in (False, True)}


def parts():
  of_reconstruction = jax.grad(lambda y: reconstruction(y).sum())(X_HAT)
  of_adversary = jax.grad(lambda y: -judged(PARAMS, y).mean((1, 2, 3, 4)).sum())(X_HAT)
  return of_reconstruction, of_adversary


def test_the_reconstruction_follows_its_own_loss_and_persuades(gradients):
  of_reconstruction, of_adversary = parts()
  expected = of_reconstruction + 0.3 * of_adversary
  np.testing.assert_allclose(gradients[False][0], expected, rtol=1e-4, atol=1e-6)


def test_the_adaptive_weight_makes_both_gradients_of_an_example_alike(gradients):
  of_reconstruction, of_adversary = parts()
  added = gradients[True][0] - of_reconstruction
  axes = (1, 2, 3, 4)
  norms = [jnp.sqrt(jnp.square(g).sum(axes)) for g in (added, of_reconstruction)]
  np.testing.assert_allclose(norms[0], 0.3 * norms[1], rtol=1e-3)
  cosine = (added * of_adversary).sum(axes) / (
    norms[0] * jnp.sqrt(jnp.square(of_adversary).sum(axes))
  )
  np.testing.assert_allclose(cosine, 1, rtol=1e-4)


@pytest.mark.parametrize('adaptive', [False, True])
def test_the_discriminator_learns_its_hinge_loss_and_nothing_else(gradients, adaptive):
  def hinge(params):
    real = jnp.maximum(0, 1 - judged(params, X)).mean((1, 2, 3, 4))
    fake = jnp.maximum(0, 1 + judged(params, X_HAT)).mean((1, 2, 3, 4))
    return ((real + fake) / 2).sum()

  expected = jax.grad(hinge)(PARAMS)
  for ours, theirs in zip(
    jax.tree.leaves(gradients[adaptive][1]), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_value_shown_is_the_reconstructions():
  total, metrics = adversarial_loss.losses(
    MODULE, PARAMS, X, X_HAT, reconstruction, 0.3, adaptive=True
  )
  np.testing.assert_allclose(total, reconstruction(X_HAT), rtol=1e-5)
  assert metrics['discriminator'].shape == metrics['adversarial'].shape == (3,)
