"""Private, controllable 3D latent diffusion for medical imaging, in JAX."""

from __future__ import annotations

import os
import typing

if typing.TYPE_CHECKING:
  from ldm_jax.sharing.shared_model import SharedModel

__version__ = '0.2.0'


def load(path: str | os.PathLike) -> SharedModel:
  """A model that `ldm-jax --stages=export` shared: draws, edits, encodes, decodes.

  Args:
    path: shareable.zip, or the folder.

  Raises:
    ValueError: no such model, or one that was changed or cut off.
  """
  from ldm_jax.sharing import open_model  # jax is imported when a model is loaded

  return open_model.load(path)
