"""Norms of (b,*space,c) and (b,n,c), computed in float32 for any type."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap


class GroupNorm(nn.Module):
  """Normalises each example over space and groups of channels, in float32.

  Parameters `scale`, `bias` (c,). Raises ValueError if num_groups does not divide c.
  """

  num_groups: int
  epsilon: float = 1e-6
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    if channels % self.num_groups:
      raise ValueError(
        f'{channels} channels cannot be split into {self.num_groups} groups; set '
        'norm_groups to a divisor of every entry of channels'
      )
    scale = self.param('scale', nn.initializers.ones, (channels,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
    y = x.astype(jnp.float32).reshape(x.shape[0], -1, channels)
    y = _normalise(y, scale, bias, self.num_groups, self.epsilon)
    return y.reshape(x.shape).astype(self.dtype or x.dtype)


class LayerNorm(nn.Module):
  """Normalises each token over its channels, in float32: (b,n,c).

  Parameters `scale`, `bias` (c,) if `affine`.
  """

  epsilon: float = 1e-5
  affine: bool = True
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    y = y * lax.rsqrt((y * y).mean(-1, keepdims=True) + self.epsilon)
    if self.affine:
      channels = x.shape[-1:]
      y = y * self.param('scale', nn.initializers.ones, channels, jnp.float32)
      y = y + self.param('bias', nn.initializers.zeros, channels, jnp.float32)
    return y.astype(self.dtype or x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalise(x, scale, bias, num_groups, epsilon):
  return _forward(x, scale, bias, num_groups, epsilon)[0]


def _forward(x, scale, bias, num_groups, epsilon):
  """x (b,n,c), scale and bias (c,) -> (b,n,c), and residuals for the gradient."""
  mean = functools.partial(_group_means, num_groups=num_groups)
  centre = mean(_joined(_means)(x))
  rate = lax.rsqrt(mean(_joined(_mean_squares)(x, centre)) + epsilon)
  gain = rate * scale
  return x * gain + (bias - centre * gain), (x, scale, centre, rate)


def _backward(num_groups, epsilon, residuals, g):
  """Written out: three passes over the voxels, where autodiff takes about twelve."""
  del epsilon
  x, scale, centre, rate = residuals
  mean = functools.partial(_group_means, num_groups=num_groups)
  of_bias = _joined(_means)(g)
  of_scale = _joined(_mean_products)(g, x, centre) * rate
  # x' = (x - centre) rate: g scale less its mean, and less its mean along x' times x'.
  slope = rate**2 * mean(of_scale * scale)
  level = rate * mean(of_bias * scale)
  of_x = g * (rate * scale) - x * slope + (centre * slope - level)
  num = x.shape[1]
  return of_x, num * of_scale.sum((0, 1)), num * of_bias.sum((0, 1))


_normalise.defvjp(_forward, _backward)


def _group_means(values, num_groups):
  """Means over the groups of channels, repeated per channel: (b,1,c) -> (b,1,c)."""
  b, _, channels = values.shape
  means = values.reshape(b, num_groups, -1).mean(-1)
  return jnp.repeat(means, channels // num_groups, axis=-1)[:, None]


def _means(x):
  # Over space alone: one pass over contiguous channels.
  return x.mean(1, keepdims=True)


def _mean_squares(x, centre):
  return ((x - centre) ** 2).mean(1, keepdims=True)


def _mean_products(g, x, centre):
  return (g * (x - centre)).mean(1, keepdims=True)


def _joined(function):
  """A function of examples (b,...) whose `vmap` joins the examples of all patients.

  On a CPU, XLA's sums over the third axis of (p,b,n,c), as `vmap` gives them, are
  twenty times slower than the same sums over the second axis of (p b,n,c).
  """
  call = custom_vmap(function)

  @call.def_vmap
  def _(axis_size, in_batched, *args):
    args = [
      a if batched else jnp.broadcast_to(a, (axis_size, *a.shape))
      for a, batched in zip(args, in_batched, strict=True)
    ]
    y = _joined(function)(*(a.reshape(-1, *a.shape[2:]) for a in args))
    return y.reshape(axis_size, -1, *y.shape[1:]), True

  return call
