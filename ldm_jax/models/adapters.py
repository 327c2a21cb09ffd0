"""Low-rank adapters beside frozen kernels: y = x W becomes y + s (x A) B.

[Hu21] LoRA, arXiv 2106.09685, Eq. 3, for linear layers and for convolutions: A keeps
the kernel's taps, strides and padding and has r output channels, B is a linear map from
these. Both are parameters beside the layer's own `kernel`, under the names below, so
that a layer needs no option: it takes the path if its parameters hold one.

The path runs in the activations, x A B. Forming W + s A B before the product is the
same function, but its gradient with respect to A and B goes through the gradient of the
whole kernel, one a patient in private training: as dear as training W itself.
"""

import math
import re

import jax
import jax.numpy as jnp

DOWN, UP, SCALE = 'lora_down', 'lora_up', 'lora_scale'
KERNEL = '/kernel'


def beside(layer, y, apply_kernel):
  """y with the layer's low-rank path added, if the layer has one.

  Args:
    layer: bound Flax module that holds the kernel.
    y: what the kernel gave, (...,c_out).
    apply_kernel: kernel (*k,c_in,r) -> (...,r), as the layer's own kernel is applied.
  """
  if not layer.has_variable('params', DOWN):
    return y
  down, up, scale = (
    layer.get_variable('params', name).astype(y.dtype) for name in (DOWN, UP, SCALE)
  )
  return y + scale * (apply_kernel(down) @ up)


def is_adapter(path):
  """Whether a parameter's path names what an adapter learns."""
  return path.endswith((f'/{DOWN}', f'/{UP}'))


def create(params, key, rank, alpha, targets):
  """Adapters that change nothing yet: B is zero. [Hu21, Sec. 4.1]

  Args:
    params: flat {'path/of/kernel': (*k,c_in,c_out)}.
    key: PRNG key of A, which is normal with variance 1 / fan-in.
    rank: r; of a kernel that has no such rank, its own.
    alpha: s = alpha / r, so that r need not go with the learning rate.
    targets: regular expressions, searched for in the layers' paths.

  Returns:
    Flat dict of the adapters' parameters A, B and the constant s.

  Raises:
    ValueError: for a target that names no layer, or no regular expression.
  """
  layers = [path.removesuffix(KERNEL) for path in params if path.endswith(KERNEL)]
  chosen = set()
  for target in targets:
    found = [layer for layer in layers if _search(target, layer)]
    if not found:
      raise ValueError(
        f'config.adapt.lora.targets has {target!r}, which names no layer of this '
        f'network; it has {", ".join(sorted(layers)[:8])}, ... Change '
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


def merge(params):
  """Flat parameters with every adapter added to its kernel: W + s A B.

  The function is the same, its rounding is not: compare to 1e-5, not bit by bit.
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
