"""Cross-attention guidance: an edit that preserves the source's attention maps.

[Parmar23] Pix2Pix-Zero, arXiv 2302.03027. The source is inverted with noise kept white
(`whitening`, in centred coordinates), and its cross-attention maps are recorded while
it is reconstructed. When the changed attributes are sampled, each step moves z_t down
the gradient of the squared distance between its maps and the recorded ones, and then
predicts from the moved z_t.

[Parmar23] edit by adding a direction to the source's embedding: the mean difference of
the embeddings of many sentences, because one sentence describes an image incompletely.
Attributes are the complete condition of this model, so here the direction is the
difference of this patient's two embeddings, and the moved embedding is simply that of
the changed attributes. A map is softmax(q k^T / sqrt(d)), (b, heads, voxels, tokens).
The distance is averaged over heads and summed over layers, voxels and tokens.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from ldm_jax.diffusion import drift, grid, inversion, process, solvers, whitening
from ldm_jax.models.attention import WEIGHTS
from ldm_jax.synthesis.editors.setting import Setting
from ldm_jax.types import Array, PyTree


def pix2pix_zero(
  setting: Setting,
  *,
  weight: float = 0.1,
  auto_correlation: float = 0.005,
  kl: float = 0.001,
  num_iterations: int = 1,
) -> Callable:
  """Returns the editor. Its denoiser must take mutable=['intermediates'].

  Args:
    setting: of all editors.
    weight: of the step along the gradient; 0 leaves it out.
    auto_correlation, kl: rates of `whitening.whiten` while inverting.
    num_iterations: fixed-point iterations of each inversion step. The remaining error
      is added back at each step, so that a null intervention returns the source.
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
    path: the latent after each step.
    missed: difference of `path` to what the sampler's step gives.
    maps: tuple of cross-attention maps, one per layer; () where they are not needed.
  """

  z_T: jax.Array
  path: jax.Array
  missed: jax.Array
  maps: tuple


def recorded(
  setting: Setting,
  params: PyTree,
  z: jax.Array,
  own: jax.Array,
  rates: tuple[float, float],
  num_iterations: int = 1,
  with_maps: bool = True,
) -> Recorded:
  """Inverts normalised latents z (b, ..., c) under attributes `own` (b, k).

  Args:
    setting, num_iterations: as in `pix2pix_zero`.
    params: of the denoiser.
    z, own: source latents and attributes.
    rates: auto_correlation and kl of `whitening.whiten`.
    with_maps: whether to record attention maps.
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


def guided(
  setting: Setting,
  params: PyTree,
  source: Recorded,
  own: jax.Array,
  new: jax.Array,
  keep: jax.Array | None = None,
  weight: float = 0.1,
) -> jax.Array:
  """Samples z_0 (b, ..., c) under attributes `new` (b, k) from a recorded source.

  Where keep (b, ..., 1) is true, the latents follow the source's path.
  """
  denoise = setting.towards(params, new, own)
  maps = maps_of(setting, params, new)
  t, s = map(jnp.asarray, grid.time_pairs(*setting.times))

  def step(z_t, step):
    z_source, missed, reference, t, s = step
    if weight:
      distance = lambda z_t: map_distance(maps(z_t, t), reference)
      z_t = z_t - weight * jax.grad(distance)(z_t)
    z_s = _move(setting, denoise, z_t, t, s) + missed
    return z_s if keep is None else jnp.where(keep, z_source, z_s), None

  steps = source.path, source.missed, source.maps, t, s
  return jax.lax.scan(step, source.z_T, steps)[0]


def _move(setting, denoise, z_t, t, s):
  """One deterministic step from t to s."""
  level_t, level_s = setting.schedule.at(t), setting.schedule.at(s)
  output = denoise(z_t, jnp.full(z_t.shape[:1], t))
  pair = process.to_pair(output, z_t, level_t, setting.prediction)
  return solvers.ddim_move(*pair, level_t, level_s)


def maps_of(
  setting: Setting, params: PyTree, attributes: Array
) -> Callable[[jax.Array, Array], tuple[jax.Array, ...]]:
  """Returns maps(y_t, t) -> one array (b, heads, voxels, tokens) per layer.

  Args:
    setting: of all editors; y_t (b, ..., c) is in its centred coordinates, t one time.
    params: of the denoiser.
    attributes: (b, k), from which the network computes the tokens.

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
        "counterfactual.editor is 'pix2pix_zero', which needs cross-attention, but "
        "this denoiser has none. Train one with 'attention' in "
        'diffusion.conditioner.by and with diffusion.model.middle_attention or '
        "attention_levels, or set counterfactual.editor='ddim'."
      )
    return tuple(weights for layer in layers for weights in layer)

  return maps


def map_distance(
  maps: tuple[jax.Array, ...], reference: tuple[jax.Array, ...]
) -> Array:
  """Squared distance of two tuples of maps, summed over the batch: a scalar."""
  return sum(((a - b) ** 2).mean(1).sum() for a, b in zip(maps, reference, strict=True))
