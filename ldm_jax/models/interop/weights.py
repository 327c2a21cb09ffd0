"""Files of named tensors: .safetensors, .npz, and .pt/.pth if torch is installed."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from ldm_jax import atomic

READABLE = ('.safetensors', '.npz', '.pt', '.pth', '.ckpt', '.bin')
# Keys under which training scripts store the tensors.
_NESTS = ('state_dict', 'model_state_dict', 'unet_state_dict', 'model')


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """{name: array} of a file of weights; code in the file is never executed.

  Raises:
    ValueError: a missing file, an unknown kind, broken content, or a torch file while
      torch is not installed.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(
      f'The file {path} does not exist; give the weights with --weights=FILE.'
    )
  suffix = path.suffix.lower()
  if suffix not in READABLE:
    raise ValueError(
      f'{path} has the suffix {suffix!r}, expected one of {", ".join(READABLE)}. '
      'Convert the file.'
    )
  try:
    if suffix == '.safetensors':
      from safetensors.numpy import load_file

      return dict(load_file(path))
    if suffix == '.npz':
      with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
  except Exception as error:
    raise ValueError(f'{path} could not be read as {suffix}: {error}') from error
  return _read_torch(path)


def write(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
  """Writes {name: array} as .safetensors or .npz, atomically.

  Raises:
    ValueError: another suffix, or a file that exists.
  """
  path = pathlib.Path(path)
  if path.suffix not in ('.safetensors', '.npz'):
    raise ValueError(
      f'{path} has the suffix {path.suffix!r}, expected .safetensors or .npz; change '
      '--out.'
    )
  if path.exists():
    raise ValueError(f'{path} exists; remove it or choose another --out.')
  if path.suffix == '.npz':
    atomic.write_arrays(path, **tensors)
  else:
    from safetensors.numpy import save

    atomic.write_bytes(path, save(dict(tensors)))


def _read_torch(path):
  try:
    import torch
  except ImportError as error:
    raise ValueError(
      f'{path} is a torch file, but torch is not installed. Install it '
      '(pip install "ldm-jax[interop]"), or save the weights as .safetensors.'
    ) from error
  try:
    found = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:
    raise ValueError(
      f'{path} could not be read as plain tensors (weights_only=True): {error}'
    ) from error
  for nest in _NESTS:
    if isinstance(found, dict) and isinstance(found.get(nest), dict):
      found = found[nest]
  wrong = [
    name for name, value in dict(found).items() if not isinstance(value, torch.Tensor)
  ]
  if wrong:
    raise ValueError(
      f'{path} contains entries that are no tensors: {", ".join(map(str, wrong[:5]))}; '
      'save the state_dict of one network.'
    )
  return {name: value.detach().numpy() for name, value in found.items()}
