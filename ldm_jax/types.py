"""Names that annotations share. Shapes and units stand in the docstrings."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

__all__ = ['Array', 'Config', 'Progress', 'PyTree', 'Shape']

# np.ndarray or jax.Array: `data/` must not import jax to say so.
Array = Any
# A whole config, or one section of it.
Config = ConfigDict
# Nested or flat dicts of arrays, such as a module's parameters.
PyTree = Any
# advance(done, total=None): tells a progress bar how far the work is.
Progress = Callable[..., None]
Shape = tuple[int, ...]
