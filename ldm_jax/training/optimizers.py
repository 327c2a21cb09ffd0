"""Optimisers of the public trainings, for flat dicts {path: array}: Adam and Muon.

[Jordan24] Muon, https://kellerjordan.github.io/posts/muon; [Liu25] its scale that
matches Adam's, arXiv 2502.16982. Both as in `optax.contrib.muon`, which this module
calls; it only arranges the parameters. A convolution's kernel is the matrix
(taps x inputs, outputs). Matrices of one shape become one array, since on a CPU a
hundred small products cost five times as much as ten batched ones.
"""

import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from ldm_jax.training.state import clipped_adam, learning_rates
from ldm_jax.types import Array

# A matrix with fewer rows or columns has no directions worth balancing; it is trained
# by Adam, as are biases and norms.
SMALLEST = 8
# Root mean square of an update in learning rates: that of Adam. [Liu25] Section 2.2
ADAMS_SCALE = 0.2
_REST = 'rest'


def public(
  name: str, peak: float, num_steps: int, warm_up: int = 100
) -> optax.GradientTransformation:
  """The named optimiser, 'adam' or 'muon', with the schedule `learning_rates`."""
  kinds = {'adam': clipped_adam, 'muon': muon}
  return kinds[name](learning_rates(peak, num_steps, warm_up))


def muon(learning_rate: float | optax.Schedule) -> optax.GradientTransformation:
  """Muon for a flat dict {path: array}, gradients clipped to norm 1.

  Args:
    learning_rate: of matrices and of Adam for everything else.
  """
  rule = contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
  inner = optax.chain(
    optax.clip_by_global_norm(1.0),
    contrib.muon(
      learning_rate,
      consistent_rms=ADAMS_SCALE,
      muon_weight_dimension_numbers=lambda stacked: {
        name: None if name == _REST else rule for name in stacked
      },
    ),
  )

  def init(params):
    return inner.init(stack(params))

  def update(gradient, state, params):
    updates, state = inner.update(stack(gradient), state, stack(params))
    return unstack(updates, gradient), state

  return optax.GradientTransformation(init, update)


def stack(flat: dict[str, Array]) -> dict[str, Array]:
  """{path: array} -> {'m x n': (k, m, n)} and 'rest', one vector of all others."""
  groups = _groups(flat)
  rest = [flat[path].ravel() for path in groups.pop(_REST)]
  stacked = {
    name: jnp.stack([_matrix(flat[path]) for path in paths])
    for name, paths in groups.items()
  }
  return {**stacked, _REST: jnp.concatenate(rest) if rest else jnp.zeros(0)}


def unstack(stacked: dict[str, Array], like: dict[str, Array]) -> dict[str, Array]:
  """The inverse of `stack`, to the paths and shapes of `like`, in its order."""
  flat = {}
  for name, paths in _groups(like).items():
    if name == _REST:
      ends = np.cumsum([like[path].size for path in paths], dtype=int).tolist()
      starts = [0, *ends]
      parts = [stacked[name][i:j] for i, j in zip(starts, ends, strict=False)]
    else:
      parts = list(stacked[name])
    for path, part in zip(paths, parts, strict=True):
      flat[path] = part.reshape(like[path].shape)
  return {path: flat[path] for path in like}


def _groups(flat):
  """Name of each stack -> paths, in the order of the paths."""
  groups = {_REST: []}
  for path in sorted(flat):
    shape = _matrix_shape(flat[path])
    name = _REST if min(shape) < SMALLEST else '{} x {}'.format(*shape)
    groups.setdefault(name, []).append(path)
  return groups


def _matrix(value):
  return value.reshape(_matrix_shape(value))


def _matrix_shape(value):
  """(rows, columns) of a parameter; one row for a vector."""
  columns = value.shape[-1] if value.ndim else 1
  return value.size // max(columns, 1), columns
