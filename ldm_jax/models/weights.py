"""Files of named tensors: .safetensors, .npz, and .pt/.pth where torch is installed."""

import pathlib

import numpy as np

READABLE = ('.safetensors', '.npz', '.pt', '.pth', '.ckpt', '.bin')
# Where training scripts put the tensors, if not at the top.
_NESTS = ('state_dict', 'model_state_dict', 'unet_state_dict', 'model')


def read(path):
  """{name: array} of a file of weights; nothing in it is executed.

  Raises:
    ValueError: a missing file, an unknown kind, broken content, or a torch file where
      torch is not installed.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'There is no file {path}; give the weights with --weights=FILE.')
  suffix = path.suffix.lower()
  if suffix not in READABLE:
    raise ValueError(
      f'{path} ends in {suffix!r}; weights are read from {", ".join(READABLE)}.'
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


def write(path, tensors):
  """Writes {name: array} as .safetensors or .npz, whole or not at all.

  Raises:
    ValueError: another kind, or a file that is already there.
  """
  path = pathlib.Path(path)
  if path.suffix not in ('.safetensors', '.npz'):
    raise ValueError(f'{path}: weights are written as .safetensors or .npz.')
  if path.exists():
    raise ValueError(f'{path} exists; remove it or choose another --out.')
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.stem}.tmp{path.suffix}')
  if path.suffix == '.npz':
    np.savez(temporary, **tensors)
  else:
    from safetensors.numpy import save_file

    save_file(tensors, temporary)
  temporary.rename(path)


def _read_torch(path):
  try:
    import torch
  except ImportError as error:
    raise ValueError(
      f'{path} is a torch file and torch is not installed. Install the extra '
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
      f'{path} holds {", ".join(map(str, wrong[:5]))} beside tensors; save the '
      'state_dict of one network.'
    )
  return {name: value.detach().numpy() for name, value in found.items()}
