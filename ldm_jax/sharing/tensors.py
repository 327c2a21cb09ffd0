"""Parameters of a system <-> the bytes of a safetensors file.

Names: 'autoencoder/<path>', 'denoiser/<path>', 'latent_mean' and 'latent_std' (c,).
Numbers are float32 or bfloat16; after reading all are float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from ldm_jax.training.state import flatten, misfits, unflatten
from ldm_jax.types import PyTree, Shape

NETWORKS = ('autoencoder', 'denoiser')
STATISTICS = ('latent_mean', 'latent_std')
DTYPES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16}
# Types as the file names them; its library for NumPy does not read the second.
STORED = {'F32': np.float32, 'BF16': ml_dtypes.bfloat16}
METADATA = {'format': 'ldm_jax'}


def to_bytes(
  params: Mapping[str, PyTree], statistics: Mapping[str, Any], dtype: str
) -> bytes:
  """The content of model.safetensors; equal numbers give equal bytes.

  Args:
    params: {'autoencoder', 'denoiser'} -> nested parameters.
    statistics: {'latent_mean', 'latent_std'}, (c,) each; always float32.
    dtype: of the parameters, a key of DTYPES.

  Raises:
    ValueError: a number that is not finite.
  """
  tensors = {name: np.asarray(statistics[name], np.float32) for name in STATISTICS}
  for network in NETWORKS:
    for path, leaf in flatten(params[network]).items():
      tensors[f'{network}/{path}'] = np.ascontiguousarray(leaf, DTYPES[dtype])
  for name, array in tensors.items():
    if not np.isfinite(array.astype(np.float32)).all():
      raise ValueError(
        f'The parameter {name} has numbers that are not finite, so the model is of no '
        'use; train it again with a lower learning rate.'
      )
  return save(dict(sorted(tensors.items())), METADATA)


def from_bytes(content: bytes) -> tuple[dict[str, PyTree], dict[str, np.ndarray]]:
  """Inverse of `to_bytes`: (nested float32 parameters of each network, statistics).

  Raises:
    ValueError: no safetensors, or other tensors than those of a shared model.
  """
  try:
    tensors = {
      name: np.frombuffer(found['data'], STORED[found['dtype']]).reshape(found['shape'])
      for name, found in deserialize(content)
    }
  except (SafetensorError, ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'model.safetensors could not be read ({error}); copy the model again.'
    ) from error
  flat: dict[str, dict[str, np.ndarray]] = {network: {} for network in NETWORKS}
  for name, array in tensors.items():
    network, _, path = name.partition('/')
    if name in STATISTICS:
      continue
    if network not in flat or not path:
      raise ValueError(f'model.safetensors has the tensor {name!r}, which is unknown.')
    flat[network][path] = np.asarray(array, np.float32)
  missing = [name for name in STATISTICS if name not in tensors]
  if missing or not flat['denoiser']:  # a wavelet transform has no parameters
    raise ValueError(
      'model.safetensors lacks tensors; expected those of an autoencoder and a '
      'denoiser, latent_mean and latent_std. Copy the model again.'
    )
  statistics = {name: np.asarray(tensors[name], np.float32) for name in STATISTICS}
  return {network: unflatten(parts) for network, parts in flat.items()}, statistics


def check_shapes(network: str, params: PyTree, expected: PyTree) -> None:
  """Refuses parameters that are not those of a network.

  A denoiser may have more: what reads an earlier visit, or a new token, exists only
  where it was trained.

  Raises:
    ValueError: a parameter is missing, or has another shape.
  """
  theirs: dict[str, Shape] = {k: tuple(v.shape) for k, v in flatten(params).items()}
  ours = {path: tuple(leaf.shape) for path, leaf in flatten(expected).items()}
  known = ours.keys() if network == 'denoiser' else theirs.keys() | ours.keys()
  if wrong := misfits(theirs, ours, known):
    raise ValueError(
      f'model.safetensors does not fit config.json: {network}: {wrong}. The files are '
      'of two models, or this version of ldm-jax is too old or too new for them.'
    )
