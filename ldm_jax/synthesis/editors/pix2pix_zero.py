"""Cross-attention guidance: an edit that keeps where the source attends to what.

[Parmar23] Pix2Pix-Zero, arXiv 2302.03027. The source is inverted with noise kept white
(`whitening`, in centred coordinates); its cross-attention maps are recorded along the
way back. While the changed attributes are sampled, each step moves z_t down the
gradient of the squared distance of its maps to the recorded ones, then predicts anew.

The edit direction is the difference of the condition's embeddings, of the changed and
of the source's attributes, added to the source's own. [Parmar23] average it over many
sentences because one sentence says little about an image; attributes say all that the
model was told about a patient, so that the direction is this patient's own, and the
moved embedding is that of the changed attributes. A map is softmax(q k^T / sqrt(d)),
(b, heads, voxels, tokens); of its heads the distance takes the mean, over layers,
voxels and tokens the sum.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from ldm_jax.diffusion import drift, grid, inversion, process, solvers, whitening
from ldm_jax.models.attention import WEIGHTS


def pix2pix_zero(
  setting,
  *,
  weight: float = 0.1,
  auto_correlation: float = 0.005,
  kl: float = 0.001,
  num_iterations: int = 1,
):
  """Returns the editor. Its denoiser must take mutable=['intermediates'].

  Args:
    setting: `setting.Setting`.
    weight: of the step along the gradient; 0 leaves it out.
    auto_correlation, kl: rates of `whitening.whiten` while inverting.
    num_iterations: fixed-point refinements of each inversion step; what all of this
      misses is added back, so that a null intervention returns the source.
  """

  def edit(params, z, own, new, keep):
    rates = auto_correlation, kl
    source = recorded(setting, params, z, own, rates, num_iterations, bool(weight))
    return guided(setting, params, source, own, new, keep, weight)

  return setting.jitted(edit)


class Recorded(NamedTuple):
  """An inverted source, one entry per step in the order of sampling, (n, b, ...).

  Attributes:
    z_T: (b, ..., c), where sampling begins.
    path: where each step arrives. missed: what the step misses of it.
    maps: tuple of cross-attention maps, one per layer; () where they are not needed.
  """

  z_T: jax.Array
  path: jax.Array
  missed: jax.Array
  maps: tuple


def recorded(setting, params, z, own, rates, num_iterations=1, with_maps=True):
  """Inverts normalised latents z (b, ..., c) of attributes `own` (b, k) -> Recorded.

  Args:
    rates: auto_correlation and kl of `whitening.whiten`.
  """
  plain = setting.towards(params, own)
  white = whitening.whitened(plain, setting.schedule, setting.prediction, *rates)
  z_T, path, _ = inversion.ddim_invert_path(
    white,
    z,
    *setting.grid,
    num_iterations=num_iterations,
    shift=drift.step_shift(setting.drift),
    **setting.options,
  )
  t, s = map(jnp.asarray, grid.time_pairs(*setting.times))
  maps = maps_of(setting, params, own)

  def reconstruct(step):
    z_t, z_s, t, s = step
    return z_s - _move(setting, plain, z_t, t, s), maps(z_t, t) if with_maps else ()

  starts = jnp.concatenate([z_T[None], path[:-1]])
  return Recorded(z_T, path, *jax.lax.map(reconstruct, (starts, path, t, s)))


def guided(setting, params, source, own, new, keep=None, weight=0.1):
  """Samples attributes `new` (b, k) from a Recorded source: -> z_0 (b, ..., c).

  keep (b, ..., 1) bool or None: where the source's path is kept.
  """
  denoise = setting.towards(params, new, own)
  maps = maps_of(setting, params, new)
  t, s = map(jnp.asarray, grid.time_pairs(*setting.times))

  def step(z_t, step):
    (_, z_source, missed, reference), t, s = step
    if weight:
      distance = lambda z_t: map_distance(maps(z_t, t), reference)
      z_t = z_t - weight * jax.grad(distance)(z_t)
    z_s = _move(setting, denoise, z_t, t, s) + missed
    return z_s if keep is None else jnp.where(keep, z_source, z_s), None

  return jax.lax.scan(step, source.z_T, (source._replace(z_T=None), t, s))[0]


def _move(setting, denoise, z_t, t, s):
  """One deterministic step from t to s."""
  level_t, level_s = setting.schedule.at(t), setting.schedule.at(s)
  output = denoise(z_t, jnp.full(z_t.shape[:1], t))
  pair = process.to_pair(output, z_t, level_t, setting.prediction)
  return solvers.ddim_move(*pair, level_t, level_s)


def maps_of(setting, params, attributes):
  """Returns maps(y_t, t) -> tuple of a (b, heads, voxels, tokens) per layer.

  Args:
    setting: `setting.Setting`; y_t (b, ..., c) is in its centred coordinates, t one
      time.
    attributes: (b, k) that the tokens are made of.

  Raises:
    ValueError: (when called) a network without cross-attention.
  """
  drop = jnp.zeros(len(attributes), bool)

  def maps(y_t, t):
    z_t = drift.from_centred(y_t, setting.schedule.at(t), setting.drift)
    times = jnp.full(z_t.shape[:1], t)
    _, sown = setting.apply_denoiser(
      params, z_t, times, attributes, drop, mutable=['intermediates']
    )
    found = flatten_dict(sown.get('intermediates', {}))
    layers = [found[path] for path in sorted(found) if path[-1] == WEIGHTS]
    if not layers:
      raise ValueError(
        "counterfactual.editor is 'pix2pix_zero', but this denoiser has no "
        'cross-attention, whose maps it would keep; required are a network with '
        "'attention' in diffusion.conditioner.by and diffusion.model.middle_attention "
        "or attention_levels. Train such a one, or set counterfactual.editor='ddim'."
      )
    return tuple(weights for layer in layers for weights in layer)

  return maps


def map_distance(maps, reference):
  """Squared distance of two tuples of maps, summed over the batch: a scalar."""
  return sum(((a - b) ** 2).mean(1).sum() for a, b in zip(maps, reference, strict=True))
