"""Low-rank adapters beside frozen kernels: y = x W becomes y + s (x A) B.

[Hu21] LoRA, arXiv 2106.09685, Eq. 3, for linear layers and for convolutions: A has the
kernel's taps, strides and padding and r output channels, B is a linear map from these.
Both are parameters beside the layer's own `kernel`, under the names below. Layers have
no option for it: a layer has an adapter if its parameters contain one.

The product is computed as (x A) B. Computing W + s A B first is the same function, but
its gradient with respect to A and B goes through the gradient of the whole kernel, one
per patient in private training: as expensive as training W itself.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.types import Array

DOWN, UP, SCALE = 'lora_down', 'lora_up', 'lora_scale'
KERNEL = '/kernel'


def beside(
  layer: nn.Module, y: jax.Array, apply_kernel: Callable[[jax.Array], jax.Array]
) -> jax.Array:
  """y plus the output of the layer's adapter, if the layer has one.

  Args:
    layer: bound Flax module that has the kernel.
    y: output of the kernel, (...,c_out).
    apply_kernel: kernel (*k,c_in,r) -> (...,r), as the layer applies its own kernel.
  """
  if not layer.has_variable('params', DOWN):
    return y

  def variable(name) -> jax.Array:
    return layer.get_variable('params', name).astype(y.dtype)

  down, up, scale = map(variable, (DOWN, UP, SCALE))
  return y + scale * (apply_kernel(down) @ up)


def create(
  params: Mapping[str, Array],
  key: jax.Array,
  rank: int,
  alpha: float,
  targets: Iterable[str],
) -> dict[str, jax.Array]:
  """Adapters that do not change the function yet: B is zero. [Hu21, Sec. 4.1]

  Args:
    params: flat {'path/of/kernel': (*k,c_in,c_out)}.
    key: PRNG key of A, which is normal with variance 1 / fan-in.
    rank: r; at most the rank that the kernel can have.
    alpha: s = alpha / r, so that one learning rate fits every r.
    targets: regular expressions, searched for in the layers' paths.

  Returns:
    Flat dict of the adapters' parameters A, B and the constant s.

  Raises:
    ValueError: for a target that matches no layer or is no regular expression.
  """
  layers = [path.removesuffix(KERNEL) for path in params if path.endswith(KERNEL)]
  chosen = set()
  for target in targets:
    found = [layer for layer in layers if _search(target, layer)]
    if not found:
      raise ValueError(
        f'config.adapt.lora.targets has {target!r}, which matches no layer of this '
        f'network; its layers are {", ".join(sorted(layers)[:8])}, ... Change '
        '--config.adapt.lora.targets.'
      )
    chosen |= set(found)
  adapters = {}
  for number, layer in enumerate(sorted(chosen)):
    *size, width = params[layer + KERNEL].shape
    fan_in = math.prod(size)
    own = min(rank, fan_in, width)
    draw = jax.random.normal(jax.random.fold_in(key, number), (*size, own))
    adapters[f'{layer}/{DOWN}'] = draw * fan_in**-0.5
    adapters[f'{layer}/{UP}'] = jnp.zeros((own, width))
    adapters[f'{layer}/{SCALE}'] = jnp.asarray(alpha / own, jnp.float32)
  return adapters


def merge(params: Mapping[str, Array]) -> dict[str, Array]:
  """Flat parameters with every adapter added to its kernel: W + s A B.

  The function is the same up to rounding, about 1e-5 of its size.
  """
  merged = {
    path: leaf
    for path, leaf in params.items()
    if not path.endswith((f'/{DOWN}', f'/{UP}', f'/{SCALE}'))
  }
  for path, down in params.items():
    if path.endswith(f'/{DOWN}'):
      layer = path.removesuffix(f'/{DOWN}')
      change = params[f'{layer}/{SCALE}'] * (down @ params[f'{layer}/{UP}'])
      merged[layer + KERNEL] = merged[layer + KERNEL] + change
  return merged


def _search(target, layer):
  try:
    return re.search(target, layer)
  except (re.error, TypeError) as error:
    raise ValueError(
      f'config.adapt.lora.targets has {target!r}, which is no regular expression '
      f'({error}). Change --config.adapt.lora.targets.'
    ) from None
