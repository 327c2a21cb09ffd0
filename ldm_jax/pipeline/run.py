"""What a stage works with: one object per stage, each part opened once.

config, work              settings; the work folder
spec, prepared, splits    preprocessing; the prepared cohorts
latents, conditions       what a network learns from
autoencoder, denoiser, system  networks, untrained or trained
ledger                    of the private cohort
mesh, key, schedule       devices, public random keys, noise levels
"""

from __future__ import annotations

import dataclasses
import functools
import os
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ldm_jax import prng, processes
from ldm_jax.config import parsing
from ldm_jax.data import cohorts_of_config
from ldm_jax.data.cohorts import roles
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.preprocessing.augment import augment
from ldm_jax.data.readers.grid import centred_affine
from ldm_jax.data.store import labelled, store, text_embeddings
from ldm_jax.data.store import latents as stored_latents
from ldm_jax.data.store.split import Split
from ldm_jax.diffusion.schedules import AnySchedule
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.pipeline import private_ledger
from ldm_jax.privacy import private_choice
from ldm_jax.privacy.ledger import Ledger
from ldm_jax.synthesis import system as trained_system
from ldm_jax.training import (
  checkpoint,
  encoding,
  label_masks,
  mesh,
  model_record,
  networks,
)
from ldm_jax.types import Config, PyTree, Shape
from ldm_jax.workfolder import WorkFolder

# What `prepare` read of the config and the index of a cohort does not say.
PREPARED_WITH = ('checkpoints', 'prepare', 'data.json')


def prepared_with(config: Config) -> dict[str, Any]:
  """{key of the config: JSON-able value} of what decides the prepared data."""
  data = parsing.to_plain(config.data)
  flat = {f'data.preprocess.{key}': value for key, value in data['preprocess'].items()}
  return {'data.schema': data['schema'], **flat}


@dataclasses.dataclass(frozen=True)
class Run:
  """A config and a work folder, and what follows from both.

  A stage gets a Run of its own: what it opens here is not written by this stage later.

  Attributes:
    config: of the run.
    work: its folder.
  """

  config: Config
  work: WorkFolder

  @classmethod
  def open(cls, config: Config, workdir: str | os.PathLike) -> Run:
    """A Run on a folder, in which a replacement of results that was cut is completed.

    Raises:
      ValueError: the folder cannot be written.
    """
    work = WorkFolder(workdir)
    work.wandb_project = config.run.wandb
    processes.first(work.settle)
    return cls(config, work)

  # Settings

  @functools.cached_property
  def spec(self) -> preprocess.Spec:
    """The preprocessing that the config asks for."""
    return preprocess.Spec.from_config(parsing.to_plain(self.config.data.preprocess))

  @property
  def process(self) -> int:
    """The number of this process, 0 where there is one."""
    return processes.number()

  # Not kept: what one process does alone, it does on its own devices.
  @property
  def mesh(self) -> jax.sharding.Mesh:
    """The devices, as config.mesh arranges them."""
    return mesh.make_mesh(**self.config.mesh)

  @functools.cached_property
  def schedule(self) -> AnySchedule:
    """The noise levels of config.diffusion.schedule."""
    return networks.schedule(self.config)

  def key(self, purpose: str) -> jax.Array:
    """PRNG key of one purpose; public, unlike the noise key of private training."""
    config = self.config
    key = jax.random.fold_in(prng.key(config.seed), zlib.crc32(purpose.encode()))
    own = {'adapt': config.adapt.seed, 'sample': config.sample.seed}.get(purpose)
    return jax.random.fold_in(key, own) if own else key

  def loop_arguments(self, name: str) -> dict[str, Any]:
    """The arguments of `training.loop.train` that are the same for every stage."""
    section = self.config.run
    # Steps of `adapt` are few and long (a whole batch of patients each).
    rarest = 10 if name == 'adapt' else section.checkpoint_every
    return {
      'folder': self.work.checkpoints(name),
      'log': functools.partial(self.work.log, name),
      'title': name,
      'log_every': section.log_every,
      'checkpoint_every': min(section.checkpoint_every, rarest),
    }

  def require(self, name: str) -> None:
    """Raises ValueError when the stage `name` has not been finished."""
    if self.work.finished(name) is None:
      raise ValueError(
        f'The stage {name!r} has not been run in {self.work.root}. Run it first: '
        f'--stages={name},... or leave --stages away to run all.'
      )

  # Data

  def check_prepared(self) -> None:
    """Refuses attributes or a preprocessing that the data were not prepared with.

    Raises:
      ValueError: naming the key, its value and what it was.
    """
    kept, asked = self.work.read_json(*PREPARED_WITH) or {}, prepared_with(self.config)
    for key in sorted(kept.keys() & asked.keys()):
      if kept[key] != asked[key]:
        raise ValueError(
          f'config.{key} is {asked[key]!r}, but the data in {self.work.root} were '
          f'prepared with {kept[key]!r}. Set it back, or run --stages=prepare, after '
          'which the models are trained again.'
        )

  @functools.cached_property
  def prepared(self) -> dict[str, Split]:
    """Name -> Split of the prepared cohorts, also while `prepare` still runs.

    Raises:
      ValueError: they are missing or damaged, or were prepared with other attributes or
        another preprocessing than the config's.
    """
    self.check_prepared()
    work = self.work
    return {
      name: store.open_split(
        work.store, name, spec=self.spec, index=work.found('store', f'{name}.json')
      )
      for name in cohorts_of_config.NAMES
      if self.config.data[name].layout
    }

  @property
  def splits(self) -> dict[str, Split]:
    """Name -> Split of the prepared cohorts, as the models of the folder know them.

    Raises:
      ValueError: `prepare` has not finished, or the cohorts are not preprocessed as the
        autoencoder's volumes were.
    """
    self.require('prepare')
    learned = self.work.read_json('checkpoints', 'autoencoder', 'preprocess.json')
    for split in self.prepared.values() if learned else ():
      split.check_spec(learned['spec'])
    return self.prepared

  @property
  def schema(self) -> Schema:
    """The attributes, which all cohorts of a config share."""
    return next(iter(self.prepared.values())).schema

  def conditions(self, split: Split) -> np.ndarray:
    """Encoded attributes (n,k) of a split, then its text and label maps if used.

    Raises:
      ValueError: text or label maps that are not there or do not fit.
    """
    section, parts = self.config.diffusion.text, [split.attributes]
    if section.files:
      limits = section.num_tokens, section.width
      parts.append(text_embeddings.read(section.files, split, *limits))
    if networks.mask_values(self.config):
      parts.append(label_masks.of_split(self.config, split))
    return np.concatenate(parts, 1) if len(parts) > 1 else parts[0]

  @property
  def label_values(self) -> tuple[int, ...]:
    """Values of the label maps that are drawn with the scans; () for none."""
    return networks.label_values(self.config)

  def inputs(self, split: Split, indices: np.ndarray) -> np.ndarray:
    """What the autoencoder encodes: volumes, with one-hot labels if data.labels."""
    return labelled.inputs(split, indices, self.label_values)

  def public_volumes(
    self,
    split: Split,
    indices: np.ndarray,
    *draw: str | int,
    rows: np.ndarray | None = None,
    values: tuple[int, ...] | None = None,
  ) -> np.ndarray:
    """`inputs` of a public split, transformed if `augment` makes copies.

    Args:
      split: a public cohort.
      indices: (n,) of its entries.
      draw: names this draw, so that an interrupted run draws the same again.
      rows: positions in `indices` that are wanted; None for all.
      values: label values with a channel; None for those of `label_values`.
    """
    config, values = self.config, self.label_values if values is None else values
    if not config.augment.copies:
      wanted = indices if rows is None else indices[rows]
      return labelled.inputs(split, wanted, values)
    # One stream of draws for all, whoever wants which of them.
    volumes = labelled.inputs(split, indices, values)
    options = {
      name: value for name, value in config.augment.items() if name != 'copies'
    }
    words = [zlib.crc32(str(word).encode()) for word in draw]
    moved = augment(volumes, np.random.default_rng((config.seed, *words)), **options)
    return moved if rows is None else moved[rows]

  @property
  def sample_spacing(self) -> np.ndarray:
    """(3,) voxel size (d,h,w) in mm of a synthetic volume, never of private scans.

    Public scans give it, else data.preprocess.spacing_mm.

    Raises:
      ValueError: there are no public scans, and the config keeps each scan's spacing.
    """
    for name in roles.PUBLIC:
      if name in self.splits:
        return self.splits[name].spacing_mm
    wanted = self.spec.spacing_mm
    if None in wanted:
      raise ValueError(
        'The voxel size of synthetic volumes is that of public scans, but data.public '
        f'is empty and data.preprocess.spacing_mm is {wanted}; expected one of them, '
        'because that of private scans must not leave. Name the public cohort, or set '
        'data.preprocess.spacing_mm to three numbers.'
      )
    return np.asarray(wanted, np.float64)

  @property
  def sample_affine(self) -> np.ndarray:
    """(4,4) of a synthetic volume: `sample_spacing`, centred, along RAS."""
    return centred_affine(self.spec.shape, self.sample_spacing)

  # Latents

  @functools.cached_property
  def autoencoder(self) -> encoding.TrainedAutoencoder:
    """The autoencoder as trained."""
    return encoding.trained_autoencoder(self.config, self.work)

  @functools.cached_property
  def statistics(self) -> dict[str, list[float]]:
    """{'mean', 'std'} per channel (c) of the public latents."""
    return self.work.read_json('checkpoints', 'encode', 'latent_statistics.json')

  def normalise(self, z: np.ndarray | jax.Array) -> np.ndarray:
    """Latents (...,c) in units of the public statistics."""
    return np.asarray(
      encoding.normalise(z, self.statistics['mean'], self.statistics['std'])
    )

  @property
  def tag(self) -> str:
    """Hash of the autoencoder whose latents the finished stage `encode` has stored."""
    return self.work.read_json('checkpoints', 'encode', 'done.json')['tag']

  def stored(self, split: Split, kind: str = 'mean') -> np.ndarray | None:
    """What `encode` stored of a split (n,...,c), memory-mapped, or None."""
    return stored_latents.read(self.work.store, split, self.tag, kind)

  def latents(self, split: Split) -> np.ndarray:
    """Normalised latents (n,...,c) of a prepared split, in memory.

    Raises:
      ValueError: the stage `encode` has not stored them.
    """
    self.require('encode')
    found = self.stored(split)
    if found is None:
      raise ValueError(
        f'The store has no latents of the cohort {split.name!r} by this autoencoder. '
        'Run the stage encode again: --stages=encode.'
      )
    return self.normalise(np.asarray(found))

  # Networks

  @functools.cached_property
  def denoiser(self) -> ConditionalDenoiser:
    """The denoising network, without parameters."""
    return networks.denoiser(self.config, self.schema)

  def initial_denoiser(self, latent_shape: Shape) -> PyTree:
    """Nested parameters of the denoiser before any training, for latents (...,c)."""
    return networks.initial_denoiser(
      self.denoiser, self.key('init'), latent_shape, len(self.schema)
    )

  @functools.cached_property
  def system(self) -> trained_system.System:
    """The trained system that samples and edits.

    Raises:
      ValueError: a stage has not finished, or was trained with other attributes.
    """
    split = next(iter(self.splits.values()))
    stage = trained_system.sampled_stage(self.config, self.work)
    model_record.check_schema(self.work, stage, split.schema)
    return trained_system.load(
      self.config, self.work, self.autoencoder, split.schema, split.shape
    )

  def reconstruct(self, x: np.ndarray) -> jax.Array:
    """x (b,d,h,w,1) encoded and decoded by the trained autoencoder."""
    return self.system.decode(self.system.encode(x))

  def learned_once(self, name: str, mark: str, learn: Callable[[], PyTree]) -> PyTree:
    """Parameters of a network beside the stages, learned anew when its mark changes.

    Args:
      name: of its folder in checkpoints/.
      mark: digest of everything it is learned from.
      learn: () -> nested parameters; it resumes from the folder of `name`.
    """
    work = self.work

    def begun():
      if work.finished(name) == mark:
        return False
      work.restart(name, mark)
      return True

    if processes.first(begun):
      work.enter(name)
      checkpoint.save_params(work.checkpoints(name), learn())
      processes.first(lambda: work.finish(name, mark))
      work.leave(name)
    return checkpoint.load_params(work.checkpoints(name))

  # Privacy

  @functools.cached_property
  def ledger(self) -> Ledger:
    """The ledger of the private cohort; it reads its file at every question.

    Raises:
      ValueError: it has lost releases that the work folder knows of.
    """
    patients = self.prepared['private'].patient_names
    return private_ledger.open_ledger(self.config, self.work, patients)

  @property
  def own_name(self) -> str:
    """The random name that this run of `adapt` keeps when it resumes."""
    return self.work.read_json('checkpoints', 'adapt', 'started.json')['run']

  @property
  def name(self) -> str:
    """Name of this run in the ledger, which the runs of a private choice share."""
    privacy = self.config.adapt.privacy
    if privacy is not None and privacy.choice:
      return private_choice.ledger_name(privacy.choice)
    return self.own_name
