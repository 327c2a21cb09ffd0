"""Frozen feature networks from files: VGG-16, RadImageNet's and MedicalNet's ResNets.

Each is a function (n,*space,c) -> list of maps (n,*,f), computed with the tensors of
its published PyTorch file, under the names of torchvision, RadImageNet or MedicalNet.
Only the forward pass and the gradient with respect to the input are needed.

[Simonyan15] VGG. [He16] ResNet. [Mei22] RadImageNet. [Chen19] MedicalNet (Med3D).
"""

import os
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ldm_jax.models.interop import weights
from ldm_jax.types import Array

# Convolutions of torchvision's vgg16.features by stage; each stage ends with a pool.
VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH_NORM_EPSILON = 1e-5
# RadImageNet's file has numbers in place of the names of torchvision's ResNet.
_NUMBERED = {'0': 'conv1', '1': 'bn1'} | {str(i + 3): f'layer{i}' for i in range(1, 5)}
NETWORKS = ('vgg16', 'radimagenet', 'medicalnet')


def load(network: str, path: str | os.PathLike) -> Callable[[Array], list[jax.Array]]:
  """Feature function of a published file of weights.

  Args:
    network: 'vgg16' and 'radimagenet' take 2D images (n,h,w,c) in [0, 1], 'medicalnet'
      volumes (n,d,h,w,1); one channel is repeated if three are expected.
    path: .pt, .pth (with torch installed), .safetensors or .npz.

  Raises:
    ValueError: an unknown network, a file that cannot be read, or tensors missing.
  """
  if network not in NETWORKS:
    raise ValueError(
      f'network is {network!r}, expected one of {", ".join(NETWORKS)}; change '
      'autoencoder.perceptual.network'
    )
  tensors = {_plain(name): np.asarray(v) for name, v in weights.read(path).items()}
  required = _required(network, tensors)
  missing = sorted(name for name in required if name not in tensors)
  if missing:
    raise ValueError(
      f'{path} is not a file of {network}: it lacks {", ".join(missing[:5])}'
      f'{" and others" if len(missing) > 5 else ""}; set '
      'autoencoder.perceptual.weights to the published file of '
      'autoencoder.perceptual.network'
    )
  tensors = {name: _ours(tensors[name]) for name in required}
  build = {'vgg16': _vgg, 'radimagenet': _radimagenet, 'medicalnet': _medicalnet}
  return lambda x: build[network](tensors, x)


def _ours(tensor):
  """Torch's kernel (c_out,c_in,*k) -> (*k,c_in,c_out); vectors as they are."""
  if tensor.ndim > 2:
    tensor = np.moveaxis(tensor, (0, 1), (-1, -2))
  return jnp.asarray(np.ascontiguousarray(tensor, np.float32))


def _plain(name):
  """Names without wrappers: 'module.layer1.0.conv1.weight' -> 'layer1...'."""
  name = re.sub(r'^(module|model|backbone)\.', '', name)
  first, _, rest = name.partition('.')
  numbered = first in _NUMBERED and not name.startswith('features')
  return f'{_NUMBERED[first]}.{rest}' if numbered else name


def _required(network, tensors):
  if network == 'vgg16':
    layers = [i for stage in VGG16 for i in stage]
    return [f'features.{i}.{leaf}' for i in layers for leaf in ('weight', 'bias')]
  first = ['conv1.weight', *_norm_names('bn1'), 'layer1.0.conv1.weight']
  blocks = [n for n in tensors if n.startswith('layer') and 'num_batches' not in n]
  last = 'layer4.0.conv1.weight'
  return [*dict.fromkeys([*first, last, *blocks])]


def _norm_names(name):
  leaves = ('weight', 'bias', 'running_mean', 'running_var')
  return [f'{name}.{leaf}' for leaf in leaves]


def _vgg(tensors, x):
  """Outputs of the last ReLU of each of the five stages."""
  x = (_three_channels(x) - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD)
  maps = []
  for number, stage in enumerate(VGG16):
    x = _pool(x, 2, 2, 0) if number else x
    for i in stage:
      name = f'features.{i}'
      x = _conv(x, tensors[f'{name}.weight'], 1, 1) + tensors[f'{name}.bias']
      x = jax.nn.relu(x)
    maps.append(x)
  return maps


def _radimagenet(tensors, x):
  # Trained on images in BGR, less their mean.
  x = _three_channels(x)[..., ::-1] - jnp.array(IMAGENET_MEAN[::-1])
  return _resnet(tensors, x, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1))


def _medicalnet(tensors, x):
  axes = tuple(range(1, x.ndim))
  x = (x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 1e-6)
  # From the third stage on, kernels are dilated instead of strided. [Chen19]
  return _resnet(tensors, x, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))


def _resnet(tensors, x, strides, dilations):
  """Outputs of the four stages."""
  x = jax.nn.relu(_norm(tensors, 'bn1', _conv(x, tensors['conv1.weight'], 2, 3)))
  x = _pool(x, 3, 2, 1)
  maps = []
  for stage, (stride, dilation) in enumerate(zip(strides, dilations, strict=True), 1):
    block = 0
    while f'layer{stage}.{block}.conv1.weight' in tensors:
      name = f'layer{stage}.{block}'
      x = _residual(tensors, name, x, stride if block == 0 else 1, dilation)
      block += 1
    maps.append(x)
  return maps


def _residual(tensors, name, x, stride, dilation):
  """A basic block (3, 3), or a bottleneck (1, 3, 1) with its stride in the middle."""
  h, bottleneck = x, f'{name}.conv3.weight' in tensors
  for i in (1, 2, 3) if bottleneck else (1, 2):
    kernel = tensors[f'{name}.conv{i}.weight']
    wide = kernel.shape[0] > 1
    strides = stride if i == (2 if bottleneck else 1) else 1
    h = _conv(h, kernel, strides, dilation if wide else 0, dilation if wide else 1)
    h = _norm(tensors, f'{name}.bn{i}', h)
    h = h if i == (3 if bottleneck else 2) else jax.nn.relu(h)
  if f'{name}.downsample.0.weight' in tensors:
    x = _conv(x, tensors[f'{name}.downsample.0.weight'], stride, 0)
    x = _norm(tensors, f'{name}.downsample.1', x)
  elif x.shape != h.shape:  # MedicalNet's shortcut without weights
    x = x[(slice(None), *[slice(None, None, stride)] * (x.ndim - 2))]
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, h.shape[-1] - x.shape[-1])])
  return jax.nn.relu(h + x)


def _conv(x, kernel, stride, padding, dilation=1):
  """XLA's convolution: with frozen kernels there is no weight gradient to speed up."""
  axes = 'DHW'[-(kernel.ndim - 2) :]
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride,) * len(axes),
    [(padding, padding)] * len(axes),
    rhs_dilation=(dilation,) * len(axes),
    dimension_numbers=(f'N{axes}C', f'{axes}IO', f'N{axes}C'),
  )


def _norm(tensors, name, x):
  """Batch norm with its stored statistics: an affine map that mixes no examples."""
  scale, shift, mean, variance = (tensors[n] for n in _norm_names(name))
  return (x - mean) * (scale * lax.rsqrt(variance + BATCH_NORM_EPSILON)) + shift


def _pool(x, size, stride, padding):
  axes = x.ndim - 2
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    (1, *(size,) * axes, 1),
    (1, *(stride,) * axes, 1),
    [(0, 0), *[(padding, padding)] * axes, (0, 0)],
  )


def _three_channels(x):
  return jnp.repeat(x, 3, -1) if x.shape[-1] == 1 else x
