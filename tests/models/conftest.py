"""Reference networks' tensors under our names, and parameters without a compilation."""

import json
import re

import jax
import numpy as np
import pytest

RENAMED = {
  'downsampler.op': 'downsampler.conv',
  'postconv': 'conv',
  'nin_shortcut': 'skip_connection',
}


def _path(name, value):
  name = re.sub(r'\.conv\.(weight|bias)$', r'.\1', name)
  for theirs, ours in RENAMED.items():
    name = name.replace(theirs, ours)
  *path, kind = re.sub(r'\.(\d+)\b', r'_\1', name).split('.')
  weight = 'kernel' if value.ndim > 1 else 'scale'
  return [*path, weight if kind == 'weight' else kind]


@pytest.fixture
def reference(golden):
  """Loads (config, parameters, inputs, outputs) of a reference network by its name."""

  def load(name):
    config = json.loads((golden / f'{name}.json').read_text())['config']
    arrays, params = np.load(golden / f'{name}.npz'), {}
    found = {'in': {}, 'out': {}}
    for key in arrays.files:
      group, key = key.split('/')
      value = arrays[f'{group}/{key}']
      if group != 'w':
        found[group][key] = np.moveaxis(value, 1, -1) if value.ndim == 5 else value
        continue
      *path, kind = _path(key, value)
      node = params
      for part in path:
        node = node.setdefault(part, {})
      moved = kind == 'kernel'
      node[kind] = np.moveaxis(value, (0, 1), (-1, -2)) if moved else value
    return config, params, found['in'], found['out']

  return load


@pytest.fixture
def drawn():
  """Variables of a module drawn by NumPy: no compilation, no zero anywhere."""

  def draw(module, *inputs, scale=0.2, **kwargs):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs, **kwargs)
    return jax.tree.map(
      lambda leaf: rng.normal(0, scale, leaf.shape).astype(leaf.dtype), shapes
    )

  return draw
