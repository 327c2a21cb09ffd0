"""Ghost norms: per-patient gradient norms of a layer without per-patient gradients.

A linear layer, dense or convolution, maps windows u_t to y_t = u_t W. One patient's
gradient of W is sum_t u_t^T g_t with g_t the gradient of y_t, so its squared norm is
sum_{t,s} (u_t . u_s) (g_t . g_s): two small matrices where there are few positions and
W is large, as on the coarse grids that have most of the parameters. The clipped sum
over patients is then one product over all of them, with g_t scaled by each patient's
factor.
[Li22] Large Language Models Can Be Strong Differentially Private Learners, ICLR 2022.

u and g are obtained from the layers (`find`, `gradient_and_factors`): each layer found
adds a zero, the tap, to its output, and the gradient with respect to the tap is g. No
change to a layer or a loss is needed. A layer qualifies only if the loss depends on its
kernel through the calls of this layer alone; all other parameters use ordinary
per-patient gradients.

This module knows no network. A linear layer is any Flax module whose own class defines
`linear_map`, which returns the windows and the gradient of its kernel (`LinearMap`).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from ldm_jax.types import Array, PyTree

# Cost, in multiply-adds, of one entry of one patient's gradient: it is written and
# read, and for a convolution its product is less efficient than that of the batch. And
# cost of the sum over the taps of one axis, per pair of positions. (Measured.)
PRODUCTS_PER_ENTRY = {'dense': 60, 'convolution': 120}
PRODUCTS_PER_PAIR = 80
# The sum over t, s has cancellations: its rounding error, relative to
# (sum_t |u_t| |g_t|)^2, is added to the squared norm, so no norm is underestimated.
ROUNDING = 2.0**-23


class LinearMap(Protocol):
  """What a layer's `linear_map()` returns: y = windows(x) kernel.

  Attributes:
    size, strides, pairs: of the kernel, one entry per axis, pairs the zeros before and
      after each; all () for a dense layer.
  """

  size: tuple
  strides: tuple
  pairs: tuple

  def windows(self, x: jax.Array) -> jax.Array:
    """Inputs (b,*out,k) that each output is computed from, of x (b,*space,c_in)."""

  def weight_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
    """Gradient of the kernel, in its shape, summed over the batch.

    Args:
      x: (b,*space,c_in), the input. g: (b,*out,c_out), the output's gradient.
    """


@dataclasses.dataclass(frozen=True)
class Layer:
  """A linear layer whose gradient stays factored.

  Attributes:
    map: how its output follows from its input and kernel.
    outputs: shape and type of the output of each of its calls, for one patient.
  """

  map: LinearMap
  outputs: tuple


def find(
  loss_fn: Callable[..., jax.Array], trained: PyTree, example: PyTree, key: jax.Array
) -> dict[str, Layer]:
  """The layers for which ghost norms are correct and faster: {path: Layer}.

  The arguments are those of the loss of one patient; trained is a flat dict. A layer is
  excluded if the loss, with the candidate layers replaced by zeros, still uses its
  kernel: shared weights, recomputation (remat) and penalties on a weight thus use
  ordinary gradients.
  """
  if not isinstance(trained, dict) or not all(
    hasattr(w, 'dtype') for w in trained.values()
  ):
    return {}
  found: dict[str, list] = {}

  def cut(path, module, call, x):
    if path not in trained:
      return call(x)
    y = jax.eval_shape(call, x)
    found.setdefault(path, []).append((module.linear_map(), x.shape, y))
    return jnp.zeros(y.shape, y.dtype)

  def cut_loss(trained):
    with nn.intercept_methods(_at_linear_layers(cut)):
      return loss_fn(trained, example, key)

  jaxpr = jax.make_jaxpr(cut_loss)(trained).jaxpr
  used = {v for e in jaxpr.eqns for v in e.invars if not isinstance(v, Literal)}
  used = {
    path for path, v in zip(sorted(trained), jaxpr.invars, strict=True) if v in used
  }
  return {
    path: _layer(calls)
    for path, calls in found.items()
    if path not in used and _is_worthwhile(calls)
  }


def gradient_and_factors(
  loss_fn: Callable[..., jax.Array],
  layers: Mapping[str, Layer],
  kernels: PyTree,
  others: PyTree,
  example: PyTree,
  key: jax.Array,
) -> tuple[PyTree, dict[str, tuple]]:
  """One patient's gradient: of `others` as it is, of the layers' kernels in factors.

  Args:
    loss_fn: (trained, example, key) -> ().
    layers: from `find`.
    kernels, others: trained = {**kernels, **others}, kernels those of the layers.
    example, key: of the patient.

  Returns:
    (gradient of others, {path: ((x, g), ...)}), one pair per call.
  """

  def loss(others, taps):
    inputs = {path: [] for path in layers}

    def tap(path, module, call, x):
      if path not in layers:
        return call(x)
      y = call(x)
      which = len(inputs[path])
      inputs[path].append(x.astype(y.dtype))
      return y + taps[path][which]

    with nn.intercept_methods(_at_linear_layers(tap)):
      value = loss_fn({**kernels, **others}, example, key)
    return value, inputs

  taps = {
    path: [jnp.zeros(y.shape, y.dtype) for y in layer.outputs]
    for path, layer in layers.items()
  }
  gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
  (of_others, of_taps), inputs = gradient(others, taps)
  factors = {
    path: tuple(zip(inputs[path], of_taps[path], strict=True)) for path in layers
  }
  return of_others, factors


def squared_norms(layer: Layer, factors: tuple) -> jax.Array:
  """Squared norms (p,) of p patients' gradients of one kernel, never underestimated.

  Args:
    layer: a Layer.
    factors: ((x (p,b,...,c_in), g (p,b,...,c_out)), ...), one pair per call.
  """
  of_u, of_g = _products_of_windows(layer, factors), _products(g for _, g in factors)
  sizes = jnp.sqrt(jnp.diagonal(of_u, 0, 1, 2) * jnp.diagonal(of_g, 0, 1, 2))
  rounding = ROUNDING * jnp.sum(sizes, 1) ** 2
  # One axis at a time: a sum to a scalar is not vectorised on a CPU.
  return jnp.maximum((of_u * of_g).sum(1).sum(1), 0.0) + rounding


def weighted_sum(
  layer: Layer, factors: tuple, scale: jax.Array, keep: jax.Array
) -> Array:
  """sum_i scale_i (gradient of patient i), float32, over the patients kept.

  Args:
    layer, factors: as in `squared_norms`.
    scale: (p,) float32. keep: (p,) bool; rows that are not kept may contain anything.
  """

  def rows(a, factor=None):
    broad = lambda v: v.reshape(-1, *(1,) * (a.ndim - 1))
    a = a.astype(jnp.float32)
    a = a if factor is None else a * broad(factor)
    a = jnp.where(broad(keep), a, 0.0)
    return a.reshape(-1, *a.shape[2:])

  total: Any = 0.0
  with jax.default_matmul_precision('highest'):
    for x, g in factors:
      total += layer.map.weight_gradient(rows(x), rows(g, scale))
  return total


def _products(parts):
  """Products of all positions (p,t,t) in float32, of parts (p,b,...,k)."""
  a = [a.reshape(a.shape[0], -1, a.shape[-1]) for a in parts]
  a = jnp.concatenate(a, 1).astype(jnp.float32)
  with jax.default_matmul_precision('highest'):
    return jnp.einsum('ptk,psk->pts', a, a)


def _products_of_windows(layer, factors):
  """u_t . u_s (p,t,s) over all windows of all calls.

  The product of two windows is the sum, over the taps, of products of positions. These
  are computed once and summed axis by axis, so no window is written out.
  """
  inputs = [x for x, _ in factors]
  if not layer.map.size:
    return _products(inputs)
  if not _sums_over_taps(layer, [x.shape for x in inputs]):
    return _products(_windows(layer.map, x) for x in inputs)
  space, b = inputs[0].shape[2:-1], sum(x.shape[1] for x in inputs)
  products = _products(inputs).reshape(-1, b, *space, b, *space)
  sides = zip(layer.map.size, layer.map.pairs, strict=True)
  for axis, (k, pair) in enumerate(sides):
    if k == 1 and not any(pair):
      continue
    both = axis + 2, axis + 3 + len(space)
    margins = [(*pair, 0) if i in both else (0, 0, 0) for i in range(products.ndim)]
    padded = jax.lax.pad(products, jnp.float32(0), margins)
    size = padded.shape[both[0]] - k + 1
    products = 0.0
    for tap in range(k):
      part = jax.lax.slice_in_dim(padded, tap, tap + size, axis=both[0])
      products += jax.lax.slice_in_dim(part, tap, tap + size, axis=both[1])
  p, positions = products.shape[0], b * math.prod(products.shape[2 : 2 + len(space)])
  products = products.reshape(p, positions, positions)
  return jax.lax.optimization_barrier(products)  # computed once, not at every use


def _sums_over_taps(layer, shapes):
  """Whether products of windows come from those of positions: see there."""
  is_plain = bool(layer.map.size) and set(layer.map.strides) == {1}
  return is_plain and len(set(shapes)) == 1


def _windows(linear_map, x):
  """u (p,b,*out,k) of one call's x (p,b,*space,c)."""
  u = linear_map.windows(x.reshape(-1, *x.shape[2:]))
  return u.reshape(*x.shape[:2], *u.shape[1:])


def _layer(calls):
  linear_map = calls[0][0]
  return Layer(linear_map, tuple(y for *_, y in calls))


def _is_worthwhile(calls):
  layer, (_, first, y) = _layer(calls), calls[0]
  size = layer.map.size
  c_in, c_out, taps = first[-1], y.shape[-1], math.prod(size)
  positions = sum(math.prod(y.shape[:-1]) for *_, y in calls)
  width = taps * c_in
  if _sums_over_taps(layer, [shape for _, shape, _ in calls]):
    width = c_in + PRODUCTS_PER_PAIR * sum(k > 1 for k in size)
  entry = PRODUCTS_PER_ENTRY['convolution' if size else 'dense']
  return positions**2 * (width + c_out) < entry * taps * c_in * c_out


def _at_linear_layers(handle):
  """Interceptor: handle(path of the kernel, module, call, x) at linear layers."""
  inside = []  # a layer's call may call its parent class's, which is the same call

  def intercept(next_fun, args, kwargs, context):
    module = context.module
    # Its own class must say that it is linear: a subclass may compute anything.
    linear = 'linear_map' in vars(type(module))
    if not linear or context.method_name != '__call__' or module.path in inside:
      return next_fun(*args, **kwargs)
    inside.append(module.path)
    try:
      (x,) = args
      return handle('/'.join((*module.path, 'kernel')), module, next_fun, x)
    finally:
      inside.pop()

  return intercept
