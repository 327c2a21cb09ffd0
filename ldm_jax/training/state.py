"""The state of a training run as one pytree, and its optimiser update."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from ldm_jax.training import one_off
from ldm_jax.types import Array, PyTree, Shape


class TrainState(flax.struct.PyTreeNode):
  """Everything that a step reads and writes.

  Attributes:
    step: int32 (), number of steps taken.
    trained: flat dict 'path/of/parameter' -> array that the optimiser updates.
    opt_state: the optimiser's state for `trained`.
    ema: exponential moving average of `trained`, used after training; a tuple of them
      if there are several decays.
    clip_norm: float32 () where private training adapts it, else None.
  """

  step: jax.Array
  trained: dict
  opt_state: object
  ema: PyTree
  clip_norm: jax.Array | None = None


def create(
  trained: PyTree,
  optimizer: optax.GradientTransformation,
  ema_decay: float | Sequence[float] | None = None,
) -> TrainState:
  """State at step 0 for a flat dict of parameters; `ema_decay` as in `advance`."""
  several = isinstance(ema_decay, tuple | list)

  @one_off.jit  # one program; leaf by leaf, each shape would be compiled separately
  def begin(trained):
    copy = lambda: jax.tree.map(jnp.copy, trained)
    ema = tuple(copy() for _ in ema_decay) if several else copy()
    return optimizer.init(trained), ema

  opt_state, ema = begin(trained)
  return TrainState(jnp.zeros((), jnp.int32), trained, opt_state, ema)


def advance(
  state: TrainState,
  gradient: PyTree,
  optimizer: optax.GradientTransformation,
  ema_decay: float | Sequence[float],
) -> TrainState:
  """One optimiser update, and the update of the parameter averages.

  The effective decay of an average is min(decay, (1 + step) / (10 + step)), so that
  early averages are not biased towards the initial values. Several decays keep as many
  averages, in the same order.
  """
  updates, opt_state = optimizer.update(gradient, state.opt_state, state.trained)
  trained = jax.tree.map(
    lambda value, update: value + update.astype(value.dtype), state.trained, updates
  )
  step = state.step.astype(jnp.float32)

  def averaged(average, ema_decay):
    decay = jnp.minimum(ema_decay, (1 + step) / (10 + step))
    return jax.tree.map(
      lambda a, value: decay * a + (1 - decay) * value, average, trained
    )

  if isinstance(ema_decay, tuple | list):
    ema = tuple(map(averaged, state.ema, ema_decay))
  else:
    ema = averaged(state.ema, ema_decay)
  return state.replace(
    step=state.step + 1, trained=trained, opt_state=opt_state, ema=ema
  )


def learning_rates(peak: float, num_steps: int, warm_up: int = 100) -> optax.Schedule:
  """Schedule: short linear warm-up to `peak`, then cosine decay to 5 % of it."""
  num_steps = max(num_steps, 2)
  warm_up = min(warm_up, num_steps // 10 + 1)
  return optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, num_steps, 0.05 * peak)


def clipped_adam(
  learning_rate: float | optax.Schedule, **options: Any
) -> optax.GradientTransformation:
  """Adam whose gradients are clipped to norm 1."""
  return optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(learning_rate, **options)
  )


def by_prefix(
  default: optax.GradientTransformation,
  special: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
  """Optax transformation that treats flat parameters by the prefix of their path.

  Args:
    default: for paths that start with no prefix of `special`.
    special: prefix -> transformation.
  """
  transformations = {'': default, **special}

  def parts(flat):
    found = {prefix: {} for prefix in transformations}
    for path, leaf in flat.items():
      prefix = next((p for p in special if path.startswith(p)), '')
      found[prefix][path] = leaf
    return found

  def init(params):
    return {p: transformations[p].init(part) for p, part in parts(params).items()}

  def update(gradient, state, params):
    gradients, values, moved, after = parts(gradient), parts(params), {}, {}
    for prefix, transformation in transformations.items():
      updates, after[prefix] = transformation.update(
        gradients[prefix], state[prefix], values[prefix]
      )
      moved |= updates
    return {path: moved[path] for path in gradient}, after

  return optax.GradientTransformation(init, update)


def flatten(params: PyTree) -> dict[str, Array]:
  """Nested parameters -> {'path/of/parameter': array}."""
  return flatten_dict(params, sep='/')


def unflatten(flat: Mapping[str, Array]) -> dict[str, Any]:
  """{'path/of/parameter': array} -> nested parameters."""
  return unflatten_dict(flat, sep='/')


def partition(
  params: PyTree, is_trained: Callable[[str], bool]
) -> tuple[dict[str, Array], dict[str, Array]]:
  """Parameters, nested or flat -> flat (trained, frozen), by a predicate on paths.

  Raises:
    ValueError: no parameter would be trained.
  """
  flat = flatten(params)
  trained = {path: leaf for path, leaf in flat.items() if is_trained(path)}
  frozen = {path: leaf for path, leaf in flat.items() if path not in trained}
  if not trained:
    raise ValueError(
      'The chosen adapt.method trains no parameter of this network; it has: '
      f'{", ".join(sorted(flat)[:8])}, ...'
    )
  return trained, frozen


def misfits(
  theirs: Mapping[str, Shape], ours: Mapping[str, Shape], paths: Iterable[str]
) -> str:
  """Where shapes of parameters differ, the first four as text; '' where none does."""
  wrong = [
    f'{path} {theirs.get(path, "absent")} for {ours.get(path, "nothing")}'
    for path in sorted(paths)
    if theirs.get(path) != ours.get(path)
  ]
  return '; '.join(wrong[:4]) + ('; ...' if len(wrong) > 4 else '')


def parameter_hash(params: PyTree) -> str:
  """sha256 over the paths and values of nested parameters."""
  digest = hashlib.sha256()
  for path, leaf in sorted(flatten(params).items()):
    digest.update(path.encode())
    digest.update(np.ascontiguousarray(leaf, dtype='<f4').tobytes())
  return digest.hexdigest()
