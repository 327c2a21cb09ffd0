"""The denoising loss on latents (b,...,c) with attributes (b,k).

[Ho20] Denoising diffusion; [Salimans22] v-prediction; [Ho22] Classifier-free guidance;
[Yeganeh25] Latent drifting; [Hang23] Min-SNR weights.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import prng
from ldm_jax.diffusion import drift as drifts
from ldm_jax.diffusion import process, weighting
from ldm_jax.diffusion.schedules import AnySchedule
from ldm_jax.models.conditions import earlier_visit
from ldm_jax.training import pair_examples
from ldm_jax.training.plain_step import ExampleLosses
from ldm_jax.training.state import unflatten
from ldm_jax.types import Array, Config


def denoising_losses(
  module: nn.Module | None,
  schedule: AnySchedule,
  prediction: str,
  drop_probability: float,
  drift: drifts.Drift | Array | None = None,
  *,
  times: Array | None = None,
  importance: bool = False,
  min_snr_gamma: float | None = None,
  hide_from: int | None = None,
  hide_probability: float = 0.0,
  pair_drops: pair_examples.Drops | None = None,
) -> Callable[..., jax.Array]:
  """Builds (params, z_0, attributes, keys) -> (b,) weighted mean squared errors.

  Each example draws its time, its noise and whether its condition is dropped from its
  own key, and has its own weight. Nothing depends on the rest of the batch, and all of
  it comes before the gradient that private training clips.

  Args:
    module: network with apply({'params'}, z_t, t, attributes, drop, **more), where
      `more` are further named arguments passed to the losses.
    schedule, prediction: of `diffusion.schedules` and `diffusion.process`.
    drop_probability: share of examples without condition [Ho22].
    drift: a `diffusion.drift.Drift`, its value, or None: shifts the noise, and with it
      the prediction target [Yeganeh25].
    times: probabilities (T,) of the times, see `weighting.density`; None is uniform.
    importance: False lets `times` change the objective, to the mean over these times;
      True divides each loss by T p(t), which keeps the uniform objective and changes
      only the variance of its estimate (and, in private training, what is clipped).
    min_snr_gamma: gamma of [Hang23] (5 there); None gives all times equal weight.
    hide_from, hide_probability: conditions from this column on (those of a text or of
      a label map) are missing in this share of examples; None for never.
    pair_drops: pair_examples.Drops; replaces `drop_probability` for pairs of visits.

  Raises:
    ValueError: a prediction that the schedule does not define, or importance with a
      time that is never drawn.
  """
  process.check_prediction(prediction, schedule)
  num_timesteps = schedule.num_timesteps
  if importance and times is not None and not np.all(np.asarray(times) > 0):
    raise ValueError(
      'expected a positive density at every time for diffusion.times.importance=True, '
      'got zeros; set it to False or widen diffusion.times.pieces.'
    )

  def draw_time(key):
    if times is None:
      return jax.random.randint(key, (), 0, num_timesteps)
    return weighting.draw_time(key, times)

  def losses(params, z_0, attributes, keys, **more):
    key_t, key_eps, key_drop = _three(keys)
    t = jax.vmap(draw_time)(key_t)
    eps = jax.vmap(lambda key: jax.random.normal(key, z_0.shape[1:]))(key_eps)
    eps, to_predict = drifts.training_noise(eps, t, num_timesteps, drift, key_eps)
    drop = jax.vmap(lambda key: jax.random.bernoulli(key, drop_probability))(key_drop)
    if hide_from is not None:
      end = pair_drops.column if pair_drops else None
      attributes = hide(attributes, hide_from, hide_probability, key_drop, end)
    if pair_drops is not None:
      drop, attributes = pair_examples.withheld(pair_drops, attributes, key_drop)
      if pair_drops.change_scale is not None:
        pair = attributes[:, pair_drops.column :]
        z_0 = earlier_visit.change(z_0, pair, pair_drops.change_scale)
    level_t = schedule.at(t)
    z_t = process.add_noise(z_0, eps, level_t)
    output = module.apply({'params': params}, z_t, t, attributes, drop, **more)
    target = process.training_target(z_0, to_predict, level_t, prediction)
    error = jnp.square(output.astype(jnp.float32) - target)
    error = error.reshape(len(error), -1).mean(1)
    if min_snr_gamma is not None:
      error = error * weighting.min_snr(level_t, prediction, min_snr_gamma)
    if importance and times is not None:
      error = error / (num_timesteps * jnp.asarray(times, jnp.float32)[t])
    return error

  return losses


def configured_losses(
  config: Config,
  module: nn.Module | None,
  schedule: AnySchedule,
  drift: drifts.Drift | None = None,
  adapting: bool = False,
) -> Callable[..., jax.Array]:
  """`denoising_losses` of `config.diffusion`, with `adapt.times` if set and adapting.

  Raises:
    ValueError: an invalid density, weight or prediction; the message names its key.
  """
  section, times = config.diffusion, config.diffusion.times
  if adapting and config.adapt.times.density:
    times = config.adapt.times
  gamma = section.min_snr_gamma
  if gamma is not None and not (isinstance(gamma, int | float) and gamma > 0):
    raise ValueError(
      'expected config.diffusion.min_snr_gamma to be a positive number, or None for '
      f'no weights, got {gamma!r}; set --config.diffusion.min_snr_gamma=...'
    )
  probabilities = None
  if times.density != 'uniform':
    probabilities = weighting.density(
      times.density,
      schedule.num_timesteps,
      mean=times.logit_mean,
      std=times.logit_std,
      shape=times.beta,
      pieces=times.pieces,
    )
  return denoising_losses(
    module,
    schedule,
    section.prediction,
    section.drop_probability,
    drift,
    times=probabilities,
    importance=times.importance,
    min_snr_gamma=gamma,
    **_hidden(section, module),
    pair_drops=_pair_drops(config.adapt.pairs, module) if adapting else None,
  )


def _hidden(section, module):
  """Which columns of a condition are hidden at times: of a text, of a label map."""
  if module is None:
    return {}
  if section.text.files:
    share = section.text.missing_probability
    return {'hide_from': len(module.num_categories), 'hide_probability': share}
  if 'mask' in section.conditioner.by:
    share = section.mask.missing_probability
    return {'hide_from': module.num_conditions, 'hide_probability': share}
  return {}


def _pair_drops(section, module):
  if not section.use or module is None:
    return None
  shares = section.drop_condition, section.drop_source, section.drop_both
  return pair_examples.Drops(*shares, module.num_conditions, section.change_scale)


def hide(
  conditions: Array,
  column: int,
  probability: float,
  keys: jax.Array,
  end: int | None = None,
) -> jax.Array:
  """Conditions (b,k) with NaN from `column` to `end` in a share of the rows."""
  draw = lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1), probability)
  chosen = np.zeros(conditions.shape[1], bool)
  chosen[column:end] = True
  return jnp.where(jax.vmap(draw)(keys)[:, None] & chosen, jnp.nan, conditions)


def example_losses(losses: Callable[..., jax.Array]) -> ExampleLosses:
  """The loss for `training.plain_step` over batches {'z', 'attributes'}."""

  def wrapped(trained, frozen, batch, keys, step):
    del step
    params = unflatten({**frozen, **trained})
    return losses(params, batch['z'], batch['attributes'], keys), {}

  return wrapped


def patient_example_losses(loss: Callable[..., jax.Array]) -> ExampleLosses:
  """The loss for `training.plain_step` with patients as examples, without privacy."""

  def wrapped(trained, frozen, batch, keys, step):
    del step
    errors = jax.vmap(lambda example, key: loss(trained, frozen, example, key))(
      batch, keys
    )
    return errors, {}

  return wrapped


def patient_loss(
  losses: Callable[..., jax.Array], noise_multiplicity: int, num_examples: int = 0
) -> Callable[..., jax.Array]:
  """The loss of one patient, for `privacy.gradients`.

  Builds (trained, frozen, example, key) -> (), the mean over the patient's volumes and
  over `noise_multiplicity` draws of (t, noise) for each. All of it is averaged before
  the gradient is clipped, so the patient is the unit.

  The example has 'z' (m,...,c), 'attributes' (m,k), 'present' (m,) bool; rows that are
  not present (patients may have fewer than m volumes) do not count. With
  `num_examples` > 0 the mean is over that many randomly drawn volumes, or all if the
  patient has no more; its expectation is the mean over all of them.
  """

  def wrapped(trained, frozen, example, key):
    params = unflatten({**frozen, **trained})
    if num_examples:
      key, key_drawn = prng.numbered(key, 2)
      example = _drawn(example, key_drawn, num_examples)
    repeat = lambda values: jnp.repeat(values, noise_multiplicity, axis=0)
    present = repeat(example['present']).astype(jnp.float32)
    # A row's key follows from its number, not from how many rows there are: that is
    # the largest number of volumes of any patient.
    keys = prng.numbered(key, len(present))
    errors = losses(params, repeat(example['z']), repeat(example['attributes']), keys)
    return jnp.sum(errors * present) / jnp.maximum(present.sum(), 1.0)

  return wrapped


def _drawn(example, key, num):
  """`num` random examples of a patient, those that are present first.

  Always so many rows, filled up with missing ones: the number of volumes of whoever has
  most decides about m, and with it about last bits of everybody's gradient.
  """
  example = {name: _filled(name, leaf, num) for name, leaf in example.items()}
  present = example['present']
  # Each volume draws by itself, so other patients' numbers of volumes change nothing.
  order = jax.vmap(jax.random.uniform)(prng.numbered(key, len(present)))
  order = jnp.where(present, order, 2.0)
  chosen = jnp.argsort(order)[:num]
  return {name: leaf[chosen] for name, leaf in example.items()}


def _filled(name, leaf, num):
  missing = jnp.nan if name == 'attributes' else 0
  rows = (0, max(num - len(leaf), 0))
  return jnp.pad(leaf, (rows, *((0, 0),) * (leaf.ndim - 1)), constant_values=missing)


def _three(keys):
  """Three keys (b,) each of keys (b,)."""
  return [prng.fold(keys, jnp.full(keys.shape, i)) for i in range(3)]
