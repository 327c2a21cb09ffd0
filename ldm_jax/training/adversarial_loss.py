"""A discriminator trained with a reconstruction: the gradients of both in one step.

[Lim17] Lim and Ye, Geometric GAN, 1705.02894: hinge loss. [Esser21] Esser et al.,
Taming transformers, CVPR 2021, Eq. 7: adaptive weight.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ldm_jax.models.autoencoders.quantizer import send
from ldm_jax.models.critics.discriminator import hinge_of_fake, hinge_of_real
from ldm_jax.models.critics.planes import per_example
from ldm_jax.types import Array, PyTree

PREFIX = 'discriminator/'
LARGEST_WEIGHT = 1e4


def losses(
  module: nn.Module,
  params: PyTree,
  x: Array,
  x_hat: Array,
  reconstruction: Callable[[Array], jax.Array],
  weight: float,
  adaptive: bool,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Loss of a reconstructing network and its discriminator, for each example.

  Both are updated in the same step: the gradients with respect to x_hat and to params
  are those of their own losses. With `adaptive`, the adversarial gradient of an example
  is scaled to the norm of its reconstruction gradient, both with respect to x_hat
  ([Esser21] use the weights of the last layer, which couples the examples of a device).

  Args:
    module, params: the discriminator and its parameters.
    x, x_hat: (b,*space,c).
    reconstruction: x_hat -> (b,), the rest of the loss that depends on x_hat.
    weight: of the adversarial loss.
    adaptive: whether to scale the adversarial gradient.

  Returns:
    ((b,) loss, dict of (b,): adversarial, discriminator).
  """

  def judge(params, y):
    return module.apply({'params': params}, y)

  def persuade(y):
    logits = judge(lax.stop_gradient(params), y)
    value = -_mean([per_example(part, len(x)) for part in logits])
    return value.sum(), value

  def reconstruct(y):
    value = reconstruction(y)
    return value.sum(), value

  fixed = lax.stop_gradient(x_hat)
  g_reconstruction, value = jax.grad(reconstruct, has_aux=True)(fixed)
  g_adversarial, adversarial = jax.grad(persuade, has_aux=True)(fixed)
  scale: Array = weight
  if adaptive:
    ratio = _norm(g_reconstruction) / (_norm(g_adversarial) + 1e-8)
    scale = weight * jnp.clip(ratio, 0, LARGEST_WEIGHT)
    scale = scale.reshape(-1, *(1,) * (x.ndim - 1))
  total = value + _sent(x_hat, g_reconstruction + scale * g_adversarial)
  real = [hinge_of_real(part) for part in judge(params, x)]
  fake = [hinge_of_fake(part) for part in judge(params, fixed)]
  hinge = _mean([per_example(part, len(x)) for part in real + fake])
  total += hinge - lax.stop_gradient(hinge)
  return total, {'adversarial': adversarial, 'discriminator': hinge}


def _sent(x_hat, gradient):
  """Zeros (b,) whose gradient with respect to x_hat is the given one."""
  return jax.vmap(lambda y, g: send(y, g[None])[0])(x_hat, gradient)


def _norm(g):
  return jnp.sqrt(jnp.square(g).reshape(len(g), -1).sum(1))


def _mean(parts):
  return sum(parts) / len(parts)
