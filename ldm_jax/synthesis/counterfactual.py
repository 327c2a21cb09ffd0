"""What would this scan look like if an attribute were different?

Abduction: an editor (`editors`) finds the noise of the source latent under its own
attributes. Action: the changed attributes. Prediction: sampling from that noise. The
detail that the autoencoder drops is restored: an intervention that changes nothing
returns the source. Shapes as in `generate`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.data.attributes import Schema, is_missing
from ldm_jax.data.batching import chunks

# What data sets call the category of the healthy; one word may stand for another.
HEALTHY = ('healthy', 'normal', 'control', 'cn', 'hc', 'nor')


class Counterfactual(NamedTuple):
  """Arrays (b, d, h, w, 1): the result, the autoencoder's copy of x, result - x."""

  volume: np.ndarray
  reconstruction: np.ndarray
  difference: np.ndarray


def counterfactual(
  edit: Callable,
  encode: Callable,
  decode: Callable,
  params,
  x,
  attributes,
  new_attributes,
  *,
  keep=None,
  keep_detail: bool = True,
) -> Counterfactual:
  """Returns the counterfactual of volumes x (b, d, h, w, 1) in [0, 1].

  Args:
    edit: an editor of `editors`.
    encode: x -> z, the mean of the autoencoder's posterior.
    decode: z -> x.
    params: of the denoiser.
    attributes, new_attributes: (b, k), of the source and as requested.
    keep: bool, shape of x, true where the source must stay voxel for voxel.
    keep_detail: add x - decode(encode(x)) back, so that only the change is new.
  """
  x = jnp.asarray(x, jnp.float32)
  z = encode(x)
  reconstruction = decode(z)
  latent_keep = None if keep is None else shrink_keep(keep, z.shape)
  volume = decode(edit(params, z, attributes, new_attributes, latent_keep))
  if keep_detail:
    volume = x + (volume - reconstruction)
  volume = jnp.clip(volume, 0, 1)
  if keep is not None:
    volume = jnp.where(jnp.asarray(keep, bool), x, volume)
  return Counterfactual(*map(np.asarray, (volume, reconstruction, volume - x)))


def in_batches(
  batch_size: int,
  edit: Callable,
  encode: Callable,
  decode: Callable,
  params,
  x,
  attributes,
  new_attributes,
  *,
  keep=None,
  keep_detail: bool = True,
) -> Counterfactual:
  """As `counterfactual`, at most `batch_size` volumes at once; one compilation."""
  batch_size, found = min(batch_size, len(x)), []
  for indices, real in chunks(np.arange(len(x)), batch_size):
    result = counterfactual(
      edit,
      encode,
      decode,
      params,
      x[indices],
      attributes[indices],
      new_attributes[indices],
      keep=None if keep is None else keep[indices],
      keep_detail=keep_detail,
    )
    found.append([part[real] for part in result])
  return Counterfactual(*map(np.concatenate, zip(*found, strict=True)))


def shrink_keep(keep, latent_shape) -> jax.Array:
  """Brings a mask (b, d, h, w, 1) to latent resolution (b, d', h', w', 1).

  A latent cell is kept only where all voxels under it are kept.

  Raises:
    ValueError: a mask whose axes are no multiples of the latent's.
  """
  keep = jnp.asarray(keep, bool)
  spatial, latent = keep.shape[1:-1], tuple(latent_shape[1:-1])
  if len(spatial) != len(latent) or any(
    n % m for n, m in zip(spatial, latent, strict=True)
  ):
    raise ValueError(
      f'A mask of {spatial} voxels does not divide into latents of {latent} cells; '
      'pass a mask of the shape of the preprocessed volume.'
    )
  for axis, (n, m) in enumerate(zip(spatial, latent, strict=True), start=1):
    split = (*keep.shape[:axis], m, n // m, *keep.shape[axis + 1 :])
    keep = keep.reshape(split).all(axis + 1)
  return keep


def in_turn(changes: Mapping[str, Any], number: int) -> dict:
  """The changes of patient `number`: of '+5|+10|+20' patients take one each, in turn.

  Requests that differ are what shows whether a change follows its request. A patient is
  one observation: if each of his scans took another, their mean would say nothing.
  """
  found = {}
  for name, value in changes.items():
    choices = value.split('|') if isinstance(value, str) else [value]
    found[name] = choices[number % len(choices)]
  return found


def parse_changes(
  changes: Mapping[str, Any], schema: Schema, attributes: np.ndarray
) -> np.ndarray:
  """Applies requested changes to encoded attributes (k,) -> float32 (k,).

  '+10' or '-5' is relative to the source, a number or '42' absolute ('=-5' for a
  negative one), a categorical attribute takes a category's name in any case (`healthy`
  is CN, NOR, ... where that is a category), None means unknown.
  What is not named stays bit for bit.

  Raises:
    ValueError: unknown attribute, unknown category, a relative change of a category or
      of a missing value, or a result outside the attribute's range.
  """
  changed = np.array(attributes, np.float32)
  if changed.shape != (len(schema),):
    raise ValueError(
      f'Attributes of shape {changed.shape} came; required is ({len(schema)},).'
    )
  unknown = [name for name in changes if name not in schema.names]
  if unknown:
    raise ValueError(
      f'Cannot change {unknown}: the model knows the attributes {list(schema.names)}. '
      'Change counterfactual.set.'
    )
  for i, attribute in enumerate(schema):
    if attribute.name in changes:
      value = changes[attribute.name]
      changed[i] = _apply_change(attribute, float(changed[i]), value)
  return changed


def _apply_change(attribute, code, value):
  """Encoded value of one attribute after the change; code is the source's."""
  text = str(value).strip()
  relative = isinstance(value, str) and text[:1] in ('+', '-')
  if is_missing(value):
    return np.nan
  if not relative:
    new = attribute.encode(_healthy(attribute, text.removeprefix('=')))
  elif attribute.kind == 'categorical':
    raise ValueError(
      f'{attribute.name} cannot change by {text!r}: it is one of '
      f'{list(attribute.categories)}. Name one in counterfactual.set.'
    )
  elif np.isnan(code):
    raise ValueError(
      f'{attribute.name} cannot change by {text!r}: the source has no value for it. '
      'Set an absolute number in counterfactual.set.'
    )
  else:
    new = code + 2 * _step(attribute, text) / (attribute.high - attribute.low)
  # A float32 code carries a rounding of 1e-7, which is no reason to refuse.
  if attribute.kind == 'continuous' and abs(new) > 1 + 1e-5:
    raise ValueError(
      f'{attribute.name} = {text} leads to {attribute.decode(new):g}, outside its '
      f'range [{attribute.low:g}, {attribute.high:g}] {attribute.unit}'.rstrip()
      + '. Change counterfactual.set.'
    )
  return new


def _healthy(attribute, text):
  """The category that text means, where data sets name health differently."""
  if attribute.kind != 'categorical' or text in map(str, attribute.categories):
    return text
  names = {str(category).lower(): str(category) for category in attribute.categories}
  if text.lower() in names:
    return names[text.lower()]
  known = [names[word] for word in HEALTHY if word in names]
  return known[0] if text.lower() in HEALTHY and len(known) == 1 else text


def _step(attribute, text):
  """Reads the number of a relative change, naming the attribute when it is none."""
  try:
    number = float(text)
  except ValueError:
    number = np.nan
  if not np.isfinite(number):
    raise ValueError(
      f'{attribute.name} cannot change by {text!r}: a number such as +10 is required. '
      'Change counterfactual.set.'
    )
  return number
