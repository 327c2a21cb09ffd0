"""Fine-tuning on another cohort: which parameters train, and the private step.

Tags: [Abadi16] deep learning with differential privacy; [Lyu24] DP-LDM, which trains
attention and condition embedding only; [Hu21] LoRA; [De22] unlocking accuracy of
DP image classification, arXiv 2204.13650.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from ldm_jax.models import adapters
from ldm_jax.privacy import gradients, mechanism
from ldm_jax.training.mesh import EXAMPLES, state_shardings
from ldm_jax.training.state import advance

# Which parameter paths each method moves.
METHODS = {
  'full': lambda path: True,
  'attention': lambda path: (
    path.startswith(('conditioner/', 'text_conditioner/')) or 'attention' in path
  ),
  'lora': adapters.is_adapter,  # [Hu21]
}


def added(section, params, key):
  """Flat parameters that the method of `config.adapt` adds to a network's.

  Args:
    section: config.adapt.
    params: flat dict of the network's own parameters.
    key: PRNG key of their first values.
  """
  if section.method != 'lora':
    return {}
  lora = section.lora
  return adapters.create(params, key, lora.rank, lora.alpha, lora.targets)


def optimizer(section):
  """The optimiser of `config.adapt`, of gradients in units of the clip norm. [De22]

  The division comes after the noise: it is post-processing, and it takes the clip norm
  out of the step's size. Adam, which takes out any scale by itself, hardly notices.
  """
  chosen = {'adam': optax.adam, 'sgd': optax.sgd}[section.optimizer]
  moving = chosen(section.learning_rate)
  if section.privacy is None or not section.privacy.normalize:
    return moving
  return optax.chain(optax.scale(1 / section.privacy.clip_norm), moving)


def private_step(
  patient_loss,
  optimizer,
  mesh,
  ema_decay,
  *,
  clip_norm,
  noise_multiplier,
  expected_batch,
  microbatch=1,
):
  """Builds the DP-SGD step [Abadi16, Algorithm 1] with the patient as the unit.

  The order is the privacy argument: per-patient gradients, each clipped to
  `clip_norm`; their sum over all chunks and devices; Gaussian noise once; division by
  the expected batch; optimiser. Nothing rescales a gradient before the noise, and
  nothing but the noised sum reaches the state.

  Args:
    patient_loss: (trained, frozen, example, key) -> () for one patient.
    optimizer: optax transformation.
    mesh: devices; a chunk's patients are split over all of them.
    ema_decay: decay of the parameter average, or a tuple of several
      (post-processing).
    clip_norm: largest L2 norm of one patient's gradient.
    noise_multiplier: noise standard deviation over `clip_norm`.
    expected_batch: expected number of patients in a Poisson draw.
    microbatch: patients whose gradients are alive at once on a device.

  Returns:
    (state, frozen, chunks, key, noise_key) -> state, where chunks yields
    (examples, mask (n,), patients (n,)) with a fixed n: two compilations serve every
    batch, the empty one too.
  """

  def local_sum(trained, frozen, examples, mask, keys):
    loss = lambda trained, example, key: patient_loss(trained, frozen, example, key)
    local = gradients.clipped_sum(
      loss, trained, examples, mask, keys, clip_norm, microbatch
    )
    return jax.lax.psum(local, ('data', 'fsdp'))

  global_sum = jax.shard_map(
    local_sum,
    mesh=mesh,
    in_specs=(P(), P(), EXAMPLES, EXAMPLES, EXAMPLES),
    out_specs=P(),
    check_vma=False,
  )

  @functools.partial(jax.jit, donate_argnums=0)
  def accumulate(total, trained, frozen, examples, mask, patients, step, key):
    key = jax.random.fold_in(key, step)
    keys = jax.vmap(lambda patient: jax.random.fold_in(key, patient))(patients)
    chunk_sum = global_sum(trained, frozen, examples, mask, keys)
    return jax.tree.map(jnp.add, total, chunk_sum)

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state, total, noise_key):
    gradient = mechanism.privatise(
      total, noise_key, state.step, noise_multiplier, clip_norm, expected_batch
    )
    state = advance(state, gradient, optimizer, ema_decay)
    return jax.lax.with_sharding_constraint(state, state_shardings(mesh, state))

  @functools.partial(jax.jit, out_shardings=jax.NamedSharding(mesh, P()))
  def zeros(trained):
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), trained)

  def step(state, frozen, chunks, key, noise_key):
    total = zeros(state.trained)
    for examples, mask, patients in chunks:
      # Two chunks at most lie on the device, however many a draw has.
      jax.block_until_ready(total)
      total = accumulate(
        total, state.trained, frozen, examples, mask, patients, state.step, key
      )
    return update(state, total, noise_key)

  return step
