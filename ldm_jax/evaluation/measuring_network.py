"""The measuring network: volumes (n,d,h,w,1) -> labels (n,d,h,w), features (n,f).

A small segmenter trained on public labelled volumes only. Its labels are used to
measure whether a sample has the requested sizes; its bottleneck gives the features of
the Frechet distance. Without labels, `PooledLatents` gives features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from ldm_jax.data.batching import epoch_batch
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.label_values import classes_of
from ldm_jax.evaluation import control
from ldm_jax.models.critics import perceptual
from ldm_jax.models.critics.segmenter import Segmenter
from ldm_jax.training import encoding, loop, optimizers, state
from ldm_jax.training.mesh import put_examples
from ldm_jax.training.packing import Packing
from ldm_jax.training.plain_step import plain_step
from ldm_jax.types import Array, Config, PyTree

if TYPE_CHECKING:
  from ldm_jax.data.store.split import Split


def fit(
  module: nn.Module,
  params: PyTree,
  split: Split,
  section: Config,
  label_values: Sequence[int],
  *,
  mesh: Mesh,
  key: jax.Array,
  seed: int,
  run: Mapping[str, Any],
) -> PyTree:
  """Trains the segmenter on a public split; resumes like every stage.

  Args:
    module: models.critics.segmenter.Segmenter.
    params: its initial parameters.
    split: public data.store.Split with labels.
    section: config.evaluate.segmenter (steps, batch_size, optimizer, learning_rate).
    label_values: the data set's label value of each class.
    mesh: devices.
    key: PRNG key of the training step.
    seed: order of the batches.
    run: keyword arguments of training.loop.train (folder, log, ...).

  Returns:
    Trained parameters (averaged), nested.
  """

  def example_losses(trained, frozen, batch, keys, step):
    del frozen, keys, step
    logits = module.apply({'params': state.unflatten(trained)}, batch['x'])
    return segmentation_loss(logits, batch['classes']), {}

  flat = state.flatten(params)
  packing = Packing(flat)
  optimizer = optimizers.public(
    section.optimizer, packing, section.learning_rate, section.steps, warm_up=20
  )
  losses = packing.losses(example_losses)
  step = plain_step(losses, optimizer, mesh, ema_decay=0.98)

  def take_step(current, number):
    chosen = epoch_batch(len(split), section.batch_size, seed, number, wrap=True)
    x, classes = split.volumes(chosen), classes_of(split.labels(chosen), label_values)
    x, classes = augment(x, classes, np.random.default_rng((seed, number)))
    batch = put_examples(mesh, {'x': x, 'classes': classes})
    return step(current, {}, batch, key)

  initial = state.create(packing.pack(flat), optimizer)
  final = loop.train(take_step, initial, section.steps, mesh=mesh, **run)
  return state.unflatten(packing.unpack(final.ema))


def augment(
  x: np.ndarray, classes: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Random intensity scale, gamma, noise and shifts by whole voxels.

  Scanners and generated samples differ from the training volumes in these.

  Args:
    x: volumes (b,d,h,w,1) in [0,1].
    classes: class indices (b,d,h,w).
    generator: of the draws.
  """
  scale = generator.uniform(0.7, 1.3, (len(x), 1, 1, 1, 1))
  power = np.exp(generator.uniform(-0.3, 0.3, (len(x), 1, 1, 1, 1)))
  noise = generator.normal(0, 0.03, x.shape) * generator.uniform(
    size=(len(x), 1, 1, 1, 1)
  )
  x = np.clip(scale * np.clip(x, 0, 1) ** power + noise * (x > 0), 0, 1)
  shift = generator.integers(-2, 3, 2)
  return (
    np.roll(x, shift, (2, 3)).astype(np.float32),
    np.roll(classes, shift, (2, 3)),
  )


class MeasuringNetwork:
  """A trained segmenter, applied in batches of one shape.

  Attributes:
    name, sha256: of the network, to stand beside its figures.
    measures: True, it can measure anatomy.
  """

  measures: Literal[True] = True

  def __init__(self, module: Segmenter, params: PyTree, batch_size: int = 8):
    self._params, self._batch = params, batch_size
    apply: Callable[..., Any] = module.apply
    self._labels = jax.jit(lambda p, x: jnp.argmax(apply({'params': p}, x), -1))
    self._features = jax.jit(lambda p, x: apply({'params': p}, x, method='features'))
    self._distance = jax.jit(
      lambda p, x, y: perceptual.distance(
        lambda v: apply({'params': p}, v, method='maps'), x, y
      )
    )
    self.name = f'segmenter of public volumes, channels {module.channels}'
    self.sha256 = state.parameter_hash(params)

  def labels(self, volumes: Array) -> np.ndarray:
    """(n,d,h,w,1) -> uint8 class indices (n,d,h,w)."""
    return self._apply(self._labels, volumes).astype(np.uint8)

  def features(self, volumes: Array) -> np.ndarray:
    """(n,d,h,w,1) -> float32 (n,f)."""
    return self._apply(self._features, volumes)

  def distance(self, x: Array, y: Array) -> np.ndarray:
    """Perceptual distance over the features of all levels of x and y (n,d,h,w,1): (n,).

    [Zhang18] arXiv 1801.03924.
    """
    both = np.concatenate([x, y], -1)
    return self._apply(lambda p, v: self._distance(p, v[..., :1], v[..., 1:]), both)

  def _apply(self, function, volumes):
    return encoding.apply_in_batches(
      lambda x: function(self._params, x), volumes, self._batch
    )


class PooledLatents:
  """Features for public volumes without labels: pooled latents of the autoencoder.

  The mean of every latent channel in each of the volume's 2^k corners, and its standard
  deviation over the volume.

  Attributes:
    name, sha256: of the autoencoder, to stand beside its figures.
    measures: False, it cannot measure anatomy.
  """

  measures: Literal[False] = False

  def __init__(
    self, encode: Callable[[Array], Array], params: PyTree, batch_size: int = 8
  ):
    self._encode, self._batch = encode, batch_size
    self.name = 'pooled latents of the public autoencoder'
    self.sha256 = state.parameter_hash(params)

  def features(self, volumes: Array) -> np.ndarray:
    """(n,d,h,w,1) -> float32 (n,f)."""
    z = encoding.apply_in_batches(self._encode, volumes, self._batch)
    axes = tuple(range(1, z.ndim - 1))
    corners = [z]
    for axis in axes:
      corners = [
        half for part in corners for half in np.array_split(part, 2, axis) if half.size
      ]
    pooled = [part.mean(axes) for part in corners]
    return np.concatenate([*pooled, z.std(axes)], axis=1).astype(np.float32)


def measure(
  measures: Sequence[Mapping[str, Any]], labels: np.ndarray, spacing_mm: Array
) -> dict[str, np.ndarray]:
  """The sizes that `config.evaluate.measures` names, from class indices (n,d,h,w).

  Args:
    measures: entries with `name`, `kind` and `classes`: 'volume' of the classes,
      'thickness' of the second around the first, or 'width_ratio' of the first to all.
    labels: class indices (n,d,h,w).
    spacing_mm: (d,h,w) voxel size in mm.

  Returns:
    Dict name -> (n,) values: ml (times the entry's `scale`), mm, or a ratio.

  Raises:
    ValueError: an unknown kind.
  """
  voxel_ml = float(np.prod(spacing_mm)) / 1000
  values = {}
  for entry in measures:
    if entry['kind'] == 'volume':
      ml = control.volume_ml(labels, tuple(entry['classes']), voxel_ml)
      values[entry['name']] = ml * entry.get('scale', 1.0)
    elif entry['kind'] == 'thickness':
      inner, ring = entry['classes']
      values[entry['name']] = control.wall_thickness_mm(labels, inner, ring, spacing_mm)
    elif entry['kind'] == 'width_ratio':
      classes = tuple(entry['classes'])
      values[entry['name']] = control.width_ratio(labels, classes[:1], classes)
    else:
      raise ValueError(
        f'evaluate.measures has {entry["name"]!r} of kind {entry["kind"]!r}, but the '
        'kind must be volume, thickness or width_ratio.'
      )
  return values


def has_request(entry: Mapping[str, Any], schema: Schema) -> bool:
  """Whether a measure has an attribute in the schema that it can be compared with.

  A measure without `attributes` is compared with the truth only, on phantoms.
  """
  names = entry.get('attributes', ())
  return bool(len(names)) and all(name in schema.names for name in names)


def requested(
  entry: Mapping[str, Any], schema: Schema, vectors: np.ndarray
) -> np.ndarray:
  """The requested value of a measure: (n,k) encoded attributes -> (n,), NaN if unknown.

  `attributes` names one attribute, or one for each category of the attribute `by` (the
  LV volume is LVESV or LVEDV, depending on ESED).
  """
  decoded = [schema.decode(vector) for vector in vectors]
  chosen = []
  for vector, values in zip(vectors, decoded, strict=True):
    index = 0
    if entry.get('by'):
      code = vector[schema.names.index(entry['by'])]
      index = int(code) if np.isfinite(code) else 0
    value = values[entry['attributes'][index]]
    chosen.append(np.nan if value is None else float(value))
  return np.asarray(chosen)


def segmentation_loss(logits: jax.Array, classes: Array) -> jax.Array:
  """Cross-entropy plus soft Dice over the foreground classes, (b,).

  Args:
    logits: (b,*space,k), class 0 is background.
    classes: (b,*space) indices.
  """
  entropy = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
  truth = jax.nn.one_hot(classes, logits.shape[-1])
  guess = jax.nn.softmax(logits)
  axes = tuple(range(1, logits.ndim - 1))
  overlap = (truth * guess).sum(axes)[:, 1:]
  total = (truth + guess).sum(axes)[:, 1:]
  dice = 1 - (2 * overlap + 1) / (total + 1)
  return entropy.reshape(len(entropy), -1).mean(1) + dice.mean(1)
