"""What a training run must remember, as one pytree."""

import flax
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict


@flax.struct.dataclass
class TrainState:
  """Everything a step reads and writes.

  Attributes:
    step: int32 (), steps taken.
    trained: flat dict 'path/of/parameter' -> array that the optimiser moves.
    opt_state: the optimiser's state over `trained`.
    ema: exponential moving average of `trained`; what is used after training.
  """

  step: jax.Array
  trained: dict
  opt_state: object
  ema: dict


def create(trained, optimizer):
  """State at step 0 for a flat dict of parameters."""

  @jax.jit  # one program, where leaf by leaf each shape would be compiled alone
  def begin(trained):
    return optimizer.init(trained), jax.tree.map(jnp.copy, trained)

  opt_state, ema = begin(trained)
  return TrainState(jnp.zeros((), jnp.int32), trained, opt_state, ema)


def advance(state, gradient, optimizer, ema_decay):
  """One optimiser update, then the average, bias-free from the first steps.

  The average's effective decay is min(decay, (1 + step) / (10 + step)).
  """
  updates, opt_state = optimizer.update(gradient, state.opt_state, state.trained)
  trained = jax.tree.map(
    lambda value, update: value + update.astype(value.dtype), state.trained, updates
  )
  step = state.step.astype(jnp.float32)
  decay = jnp.minimum(ema_decay, (1 + step) / (10 + step))
  ema = jax.tree.map(
    lambda average, value: decay * average + (1 - decay) * value, state.ema, trained
  )
  return TrainState(step=state.step + 1, trained=trained, opt_state=opt_state, ema=ema)


def flatten(params):
  """Nested parameters -> {'path/of/parameter': array}."""
  return flatten_dict(params, sep='/')


def unflatten(flat):
  """{'path/of/parameter': array} -> nested parameters."""
  return unflatten_dict(flat, sep='/')


def partition(params, is_trained):
  """Nested parameters -> flat (trained, frozen), by a predicate over paths.

  Raises:
    ValueError: if nothing would be trained.
  """
  flat = flatten(params)
  trained = {path: leaf for path, leaf in flat.items() if is_trained(path)}
  frozen = {path: leaf for path, leaf in flat.items() if path not in trained}
  if not trained:
    raise ValueError(
      'The chosen adapt.method trains no parameter of this network (for '
      "'attention', set diffusion.model.attention_levels); it has: "
      f'{", ".join(sorted(flat)[:8])}, ...'
    )
  return trained, frozen
