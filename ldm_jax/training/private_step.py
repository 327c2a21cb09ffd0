"""Fine-tuning on the private cohort: the private step and its optimiser.

`methods` defines which parameters are trained. [Abadi16] Deep Learning with
Differential Privacy; [De22] Unlocking High-Accuracy Differentially Private Image
Classification, arXiv:2204.13650.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from math import gcd

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ldm_jax import prng
from ldm_jax.models import platform
from ldm_jax.privacy import (
  clipping,
  compensated_sum,
  gradients,
  mechanisms,
  sharded_noise,
)
from ldm_jax.privacy.noise import check_expected_batch
from ldm_jax.privacy.replay import Replay
from ldm_jax.training.mesh import EXAMPLES, state_shardings
from ldm_jax.training.state import TrainState, advance, learning_rates
from ldm_jax.types import Config, PyTree


def optimizer(section: Config) -> optax.GradientTransformation:
  """The optimiser of `config.adapt`, for gradients in units of the clip norm. [De22]

  The division by the clip norm comes after the noise, so it is post-processing. It
  makes the size of a step independent of the clip norm. Adam, which is nearly invariant
  to the scale of the gradient, hardly changes.
  """
  chosen = {'adam': optax.adam, 'sgd': optax.sgd}[section.optimizer]
  rate = section.learning_rate
  if section.schedule == 'cosine':
    rate = learning_rates(rate, section.steps)
  moving = chosen(rate)
  if section.privacy is None or not section.privacy.normalize:
    return moving
  return optax.chain(optax.scale(1 / section.privacy.clip_norm), moving)


def begin(state: TrainState, scheme: mechanisms.Poisson) -> TrainState:
  """The state with what a private run by this scheme needs besides the parameters."""
  if scheme.clipping != 'adaptive':
    return state
  return state.replace(clip_norm=jnp.float32(scheme.clip_norm))


@dataclasses.dataclass(frozen=True)
class PrivateStep:
  """A compiled private step, together with the scheme that it was built for.

  Attributes:
    take: (state, frozen, chunks, key, noise_key) -> state.
    scheme: of `privacy.mechanisms`; `private_run.take_steps` draws the patients from
      it, so that sampling and noise cannot come from different schemes.
    accumulate, privatise, update: its parts, compiled once each; who compiles them for
      other devices needs them (`pipeline.step_programs`).
    zeros, start: (trained) -> `compensated_sum` before the first chunk; (sum, rounded)
      -> memory of the noise.
    remembers: whether the noise has a memory. of_memory: the memory's sharding.
  """

  take: Callable[..., TrainState]
  scheme: mechanisms.Poisson
  accumulate: Callable[..., PyTree]
  privatise: Callable[..., tuple[PyTree, PyTree]]
  update: Callable[..., TrainState]
  zeros: Callable[[PyTree], PyTree]
  start: Callable[[PyTree], PyTree]
  remembers: bool
  of_memory: jax.NamedSharding

  def __call__(
    self,
    state: TrainState,
    frozen: PyTree,
    chunks: Iterable[tuple],
    key: jax.Array,
    noise_key: jax.Array,
  ) -> TrainState:
    return self.take(state, frozen, chunks, key, noise_key)


def private_step(
  patient_loss: Callable[..., jax.Array],
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  ema_decay: float | Sequence[float],
  scheme: mechanisms.Poisson,
  *,
  microbatch: int = 1,
  method: str = 'auto',
) -> PrivateStep:
  """Builds the DP-SGD step [Abadi16, Algorithm 1] with the patient as the unit.

  The order is the privacy argument: per-patient gradients, each clipped to `clip_norm`;
  their sum over all chunks and devices; Gaussian noise once; division by the expected
  batch; optimiser. Gradients are not rescaled before the noise, and only the noisy sum
  reaches the state.

  Args:
    patient_loss: (trained, frozen, example, key) -> () for one patient.
    optimizer: optax transformation.
    mesh: devices; the patients of a chunk are split over all of them.
    ema_decay: decay of the parameter average, or a tuple of several (post-processing).
    scheme: of `privacy.mechanisms`: clip norm, noise, expected batch.
    microbatch: patients whose gradients are in memory at once on a device; 0 for all of
      a chunk. A divisor of the chunk; fewer where a device has fewer rows.
    method: of `gradients.clipped_sum`.

  Returns:
    A PrivateStep. Its chunks yield (examples, mask (n,), numbers (n,)) with a fixed n,
    so that three compilations serve every batch, including an empty one. The random
    draws of a patient's loss follow from the patient's number.
  """
  expected_batch, rule = scheme.expected_batch, scheme.clipping
  check_expected_batch(expected_batch)
  noise = scheme.noise()
  start_noise, add_noise, of_memory = sharded_noise.over_devices(noise, mesh)

  def local_sum(total, trained, frozen, examples, mask, keys, clip_norm):
    loss = lambda trained, example, key: patient_loss(trained, frozen, example, key)
    rows = len(mask)
    own = microbatch if rows * mesh.size % (microbatch or 1) else gcd(microbatch, rows)
    add = functools.partial(
      gradients.clipped_sum,
      *(loss, trained, examples, mask, keys, clip_norm, own, method, rule),
    )
    if mesh.size == 1:  # in place: there is nothing to gather
      return add(start=total)
    return compensated_sum.add(total, jax.lax.psum(add(), ('data', 'fsdp')))

  local_sum = platform.of_mesh(mesh, local_sum)
  add_sum = local_sum
  if mesh.size > 1:
    add_sum = jax.shard_map(
      local_sum,
      mesh=mesh,
      in_specs=(P(), P(), P(), EXAMPLES, EXAMPLES, EXAMPLES, P()),
      out_specs=P(),
      check_vma=False,
    )

  @functools.partial(jax.jit, donate_argnums=0)
  def accumulate(total, trained, frozen, chunk, step, key, clip_norm):
    examples, mask, numbers = chunk
    key = jax.random.fold_in(prng.threefry(key), step)
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
    return add_sum(total, trained, frozen, examples, mask, keys, clip_norm)

  @functools.partial(jax.jit, donate_argnums=1)
  def privatise(total, memory, step, noise_key, clip_norm):
    total = compensated_sum.rounded(total)
    noisy, memory = add_noise(total, memory, noise_key, step, clip_norm)
    gradient = jax.tree.map(lambda leaf: leaf / expected_batch, noisy)
    return jax.lax.with_sharding_constraint(
      (gradient, memory), (replicated, of_memory if noise.remembers else ())
    )

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state, gradient):
    if rule == 'adaptive':
      gradient, bits = gradient
      following = clipping.next_clip_norm(
        state.clip_norm, bits, scheme.quantile, scheme.clip_norm
      )
      state = state.replace(clip_norm=following)
    state = advance(state, gradient, optimizer, ema_decay)
    return jax.lax.with_sharding_constraint(state, state_shardings(mesh, state))

  replicated = jax.NamedSharding(mesh, P())

  @functools.partial(jax.jit, out_shardings=replicated)
  def zeros(trained):
    total = (trained, jnp.zeros(())) if rule == 'adaptive' else trained
    return compensated_sum.zeros(total)

  @functools.partial(jax.jit, out_shardings=of_memory)
  def start(total):
    return start_noise(total)

  replay = Replay()

  def earlier_noise(state, noise_key):
    """The noise memory before this step, () where the noise has none."""
    if not noise.remembers:
      return ()

    def again(memory, step):
      number = jax.device_put(np.int32(step), state.step.sharding)
      total = zeros(state.trained)
      return privatise(total, memory, number, noise_key, clip_norm_of(state))[1]

    begin = lambda: start(compensated_sum.rounded(zeros(state.trained)))
    return replay.before(int(state.step), noise_key, begin, again)

  def clip_norm_of(state):
    fixed = np.float32(scheme.clip_norm)
    return state.clip_norm if rule == 'adaptive' else fixed

  def step(state, frozen, chunks, key, noise_key):
    total, clip_norm = zeros(state.trained), clip_norm_of(state)
    for chunk in chunks:
      # Wait, so that at most two chunks are on the device at a time.
      jax.block_until_ready(total)
      total = accumulate(
        total, state.trained, frozen, chunk, state.step, key, clip_norm
      )
    memory = earlier_noise(state, noise_key)
    gradient, memory = privatise(total, memory, state.step, noise_key, clip_norm)
    if noise.remembers:
      replay.keep(int(state.step) + 1, noise_key, memory)
    return update(state, gradient)

  return PrivateStep(
    step,
    scheme,
    accumulate,
    privatise,
    update,
    zeros,
    start,
    noise.remembers,
    of_memory,
  )
