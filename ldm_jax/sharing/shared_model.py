"""A shared model in the recipient's hands: draw, edit, encode, decode.

  model = ldm_jax.load('shareable.zip')
  volumes = model.sample(4, AGE=60, SEX='F')             # (4,d,h,w) in [0,1]
  volumes, labels = model.sample(4, labels=True)         # of a model that draws both
  older = model.edit('scan.nii.gz', own={'AGE': 50}, AGE='+10')
  print(model.privacy['epsilon'], model.schema.names)

No work folder and no scans of the place of the data are needed.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax import prng
from ldm_jax.config import parsing
from ldm_jax.config import sample as sample_rules
from ldm_jax.data.cohorts import label_values
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.readers import volume
from ldm_jax.sharing import asking
from ldm_jax.synthesis import (
  changes,
  edit,
  generate,
  mask_requests,
  within_patient,
  write_counterfactuals,
  write_samples,
)
from ldm_jax.synthesis import system as systems
from ldm_jax.synthesis.editors import registry
from ldm_jax.training import encoding, label_masks, networks
from ldm_jax.types import Array, Config, Progress


@dataclasses.dataclass(frozen=True)
class SharedModel:
  """A model that was exported; of `load`.

  Attributes:
    about: what made it: 'name', 'model', 'protected', 'warning', 'suffix', ...
    config: settings of sampling and editing; other keys have their defaults.
    schema: attributes that can be asked for.
    privacy: the privacy statement, as privacy.json has it.
    prior: attributes of the private cohort as released with noise, or None.
    asked: encoded requests (n,k) of the samples that came with the model, or None.
    spec: how a scan becomes the model's input.
    affine: (4,4) of samples, (d,h,w,1) -> world RAS mm.
    stack: whether d is the through-plane axis of a scan's file.
    system: networks and parameters.
  """

  about: Mapping[str, Any]
  config: Config
  schema: Schema
  privacy: Mapping[str, Any]
  prior: Mapping[str, Any] | None
  asked: np.ndarray | None
  spec: preprocess.Spec
  affine: np.ndarray
  stack: bool
  system: systems.System
  _compiled: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

  @property
  def protected(self) -> bool:
    """Whether the privacy statement guarantees something."""
    return bool(self.about['protected'])

  @property
  def label_names(self) -> dict[int, str]:
    """{value of a label map: what it means}; {} for a model without label maps."""
    values = networks.label_values(self.config) or networks.mask_values(self.config)
    names = self.config.evaluate.label_names
    return label_values.named(values, names) if values else {}

  def key(self, purpose: str, seed: int) -> jax.Array:
    """Key of a purpose, 'sample' or 'counterfactual', as `pipeline.run.Run.key`.

    The seed of the run draws the volumes of the run.
    """
    key = jax.random.fold_in(prng.key(seed), zlib.crc32(purpose.encode()))
    own = self.config.sample.seed if purpose == 'sample' else 0
    return jax.random.fold_in(key, own) if own else key

  def requests(
    self, num: int, *, seed: int = 0, rest: str = '', **attributes: Any
  ) -> np.ndarray:
    """Encoded requests (n,k), NaN for unknown; arguments as of `sample`."""
    return asking.encode(self.schema, num, attributes, **self.drawn_by(seed, rest))

  def drawn_by(self, seed: int = 0, rest: str = '') -> dict[str, Any]:
    """Options of `asking.encode` and `asking.of_rows`; '' is the best there is."""
    return asking.drawn_by(seed, rest, self.prior, self.asked)

  def sample(
    self,
    num: int | None = None,
    *,
    seed: int = 0,
    rest: str = '',
    requests: np.ndarray | Sequence[Mapping[str, Any]] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    solver: str | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    labels: bool = False,
    masks: np.ndarray | None = None,
    within_patient: Mapping[str, str] | None = None,
    **attributes: Any,
  ) -> Any:
    """Synthetic volumes (n,d,h,w) float32 in [0,1]; with `labels` a pair.

    Args:
      num: how many; 1, or as many as there are requests.
      seed: of noise and of drawn attributes; equal seeds draw equal volumes.
      rest: how attributes that are not named are drawn, by default the first of these
        that the model came with: 'prior'; 'samples', as a row of what these were asked
        for; 'uniform', each within its range; or 'unknown'.
      requests: instead of attributes: encoded (n,k), or a row {name: value} for each.
      steps, guidance, solver, batch_size: in place of those of `config.sample`.
      progress: progress(num_done, num).
      labels: also return label maps (n,d,h,w) uint8, with the values of `label_names`.
      masks: label maps (n,d,h,w) of label values to draw scans for, of a model that
        is conditioned by them; fewer than `num` are used in turn.
      within_patient: name -> values in the volumes of a patient, such as '1|0' or
        '+0|+2': volumes next to each other are of one patient, see `config.sample`.
      **attributes: name -> value, see `sharing.asking`: 60, [60, 70], '50:70', 'F|M'.

    Raises:
      ValueError: an attribute or value that the model does not know, invalid
        settings, or labels of a model that draws none.
    """
    self._check_labels(labels)
    if masks is not None and requests is None and not num:
      num = len(masks) if np.ndim(masks) == 4 else 1
    vectors, patients = self._of_patients(
      within_patient or {}, num, seed, requests, rest, attributes
    )
    chosen = {'steps': steps, 'guidance': guidance, 'solver': solver}
    chosen = self._settings({**chosen, 'batch_size': batch_size}, len(vectors))
    found = []
    columns = self._columns(masks, len(vectors))
    asked = np.concatenate([vectors, *columns], 1)
    for drawn in self.draws(asked, seed=seed, labels=True, patients=patients, **chosen):
      found.append(drawn)
      if progress is not None:
        progress(sum(len(volumes) for volumes, _ in found), len(vectors))
    volumes = np.concatenate([volumes for volumes, _ in found])
    return (volumes, np.concatenate([maps for _, maps in found])) if labels else volumes

  def draws(
    self,
    vectors: np.ndarray,
    *,
    seed: int = 0,
    labels: bool = False,
    patients: np.ndarray | None = None,
    **chosen: Any,
  ) -> Iterator[Any]:
    """Volumes (b,d,h,w) of encoded requests (n,k), batch by batch.

    Args:
      vectors: the requests; the noise of each follows from its row and the seed.
      seed: of the noise.
      labels: pairs of volumes and label maps (b,d,h,w), None for those of a model
        without.
      patients: (n,) number of the patient of each volume, who share their noise; None:
        each volume its own.
      **chosen: steps, guidance, solver, batch_size in place of `config.sample`.
    """
    chosen = self._settings(chosen, len(vectors))
    config = self._with(chosen)
    sample, decode, finish = self._once(
      ('sample', *sorted(chosen.items())),
      lambda: write_samples.compiled(config, self.system),
    )
    size = config.sample.batch_size
    for start in range(0, len(vectors), size):
      rows = np.arange(start, min(start + size, len(vectors)))
      drawn = generate.generate(
        sample,
        decode,
        self.system.params,
        vectors[rows],
        self.key('sample', seed),
        batch_size=size,
        request_ids=rows if patients is None else patients[rows],
        finish=finish,
        finish_ids=rows,
      )
      volumes, classes = write_samples.parted(drawn)
      maps = None if classes is None else self._values(classes)
      yield (volumes[..., 0], maps) if labels else volumes[..., 0]

  def edit(
    self,
    scan: str | os.PathLike | np.ndarray,
    *,
    own: Mapping[str, Any] | None = None,
    seed: int = 0,
    editor: str | None = None,
    **attributes: Any,
  ) -> np.ndarray:
    """What a scan would look like with other attributes, float32.

    Args:
      scan: a NIfTI file or DICOM folder, or a volume (d,h,w) in [0,1] on the model's
        grid. The result of a file is on the file's own grid and in its intensities, in
        the order (d,h,w); `edit_file` writes it.
      own: name -> value of the scan as it is; what is not given is unknown.
      seed: of the noise that some editors draw.
      editor: in place of `config.counterfactual.editor`.
      **attributes: name -> change: '+10' of the scan's own value, or a value.

    Raises:
      ValueError: a scan that cannot be used, an attribute that the model does not know,
        or a change that leads out of its range.
    """
    if isinstance(scan, np.ndarray):
      x = self._on_grid(scan)
      return self._edited(x, own, seed, editor, attributes)
    x, record = self.read(scan)
    changed = self._edited(x, own, seed, editor, attributes)
    return preprocess.invert(changed, record).array

  def edit_file(
    self,
    scan: str | os.PathLike,
    target: str | os.PathLike,
    **options: Any,
  ) -> None:
    """As `edit`, written to a NIfTI file on the grid of the scan's file."""
    x, record = self.read(scan)
    own, seed = options.pop('own', None), options.pop('seed', 0)
    changed = self._edited(x, own, seed, options.pop('editor', None), options)
    back = preprocess.invert(changed, record)
    note = f'SYNTHETIC edit of a scan, by {self.about["made_by"]}'
    volume.write(target, back.array, back.affine, back.source, note)

  def read(self, scan: str | os.PathLike) -> tuple[np.ndarray, dict[str, Any]]:
    """A scan's file as the model sees it, (d,h,w) in [0,1], and its way back.

    Raises:
      ValueError: the file cannot be read, or fills too little of the model's grid.
    """
    found = volume.read(scan, stack=self.stack, orientation=self.spec.orientation)
    processed = preprocess.apply(self.spec, found)
    return processed.array, processed.record

  def encode(self, x: np.ndarray | str | os.PathLike) -> np.ndarray:
    """Latents (n,...,c) of volumes (n,d,h,w) or (d,h,w) in [0,1], or of a scan's file.

    Raises:
      ValueError: volumes that are not on the model's grid.
    """
    given = x if isinstance(x, np.ndarray) else self.read(x)[0]
    volumes = self._on_grid(given)
    stacked = volumes[None] if volumes.ndim == 3 else volumes
    return self._batched(self.system.encode, stacked[..., None])

  def decode(self, z: Array) -> np.ndarray:
    """Volumes (n,d,h,w) of latents (n,...,c).

    Raises:
      ValueError: latents of another shape.
    """
    z = np.asarray(z, np.float32)
    if z.shape[1:] != tuple(self.system.latent_shape):
      raise ValueError(
        f'Expected latents (n, {", ".join(map(str, self.system.latent_shape))}), got '
        f'the shape {z.shape}; give those of model.encode.'
      )
    return self._batched(self.system.decode, z)[..., 0]

  def _check_labels(self, wanted):
    if wanted and self.system.decode_labelled is None:
      raise ValueError(
        'This model draws scans without label maps. Train one with '
        "data.labels='joint', or leave labels=False."
      )

  def _columns(self, masks, num):
    """[columns (num,m)] of label maps (n,d,h,w); [] without any."""
    if masks is None:
      return []
    values, maps = networks.mask_values(self.config), np.asarray(masks)
    if not values:
      raise ValueError(
        "This model is not conditioned by label maps. Train one with 'mask' in "
        'diffusion.conditioner.by, or leave masks=None.'
      )
    maps = self._on_grid(maps).astype(int)
    maps = maps[None] if maps.ndim == 3 else maps
    classes = mask_requests.checked(maps, values, 'masks')[np.arange(num) % len(maps)]
    return [label_masks.columns(self.config, classes)]

  def _values(self, classes):
    return label_values.values_of(classes, networks.label_values(self.config))

  def _batched(self, function, array):
    size = min(len(array), self.config.sample.batch_size)
    return encoding.apply_in_batches(function, array, max(size, 1))

  def _on_grid(self, x):
    x = np.asarray(x, np.float32)
    if x.shape[-3:] != self.spec.shape or x.ndim not in (3, 4):
      raise ValueError(
        f'Expected volumes (d,h,w) of {self.spec.shape} voxels in [0,1], got the shape '
        f"{x.shape}; give the scan's file, which is brought to the model's grid."
      )
    return x

  def _edited(self, x, own, seed, editor, attributes):
    if not attributes:
      raise ValueError(
        "Name what is to change, such as model.edit(scan, own={'AGE': 50}, AGE='+10'). "
        f'The model knows {", ".join(map(asking.described, self.schema))}.'
      )
    before = asking.encode(self.schema, 1, own or {}, rest='unknown')
    wanted = {asking.spelled(self.schema, k): v for k, v in attributes.items()}
    try:
      after = changes.parse_changes(wanted, self.schema, before[0])[None]
    except ValueError as error:
      raise ValueError(asking.advice(str(error))) from error
    config = self.config
    name = editor or config.counterfactual.editor
    parsing.require_choices(
      parsing.override(
        config.copy_and_resolve_references(), {'counterfactual.editor': name}
      ),
      {'counterfactual.editor': tuple(registry.EDITORS)},
    )
    section = config.counterfactual
    change = self._once(
      ('edit', name, seed),
      lambda: registry.make(
        name,
        write_counterfactuals.setting_of(
          config, self.system, self.key('counterfactual', seed)
        ),
        **section[name],
      ),
    )
    result = edit.in_batches(
      1,
      change,
      self.system,
      x[None, ..., None],
      before,
      after,
      keep_detail=section.keep_detail,
    )
    return result.volume[0, ..., 0]

  def _of_patients(self, within, num, seed, requests, rest, attributes):
    """Requests (n,k) of volumes, and the patient of each or None."""
    values, is_given = asking.within(self.schema, within), requests is not None
    few = num and -(-num // within_patient.num_volumes(values))
    if is_given and attributes:
      raise ValueError('Give either requests or attributes, not both.')
    if is_given:
      how = self.drawn_by(seed, rest)
      people = asking.of_requests(self.schema, requests, few, **how)
    else:
      people = self.requests(few or 1, seed=seed, rest=rest, **attributes)
    return within_patient.drawn_from(values, self.schema, people, seed, num, is_given)

  def _settings(self, chosen, num):
    """Settings of `config.sample` that are not None; batches of at most `num`."""
    chosen = {name: value for name, value in chosen.items() if value is not None}
    size = chosen.get('batch_size', self.config.sample.batch_size)
    return {**chosen, 'batch_size': max(1, min(size, num))}

  def _with(self, chosen):
    """The config with other settings of sampling, checked."""
    config = self.config.copy_and_resolve_references()
    parsing.override(config, {f'sample.{name}': v for name, v in chosen.items()})
    sample_rules.check(config)
    key, value = 'sample.steps', config.sample.steps
    most = config.diffusion.schedule.num_timesteps
    parsing.require(0 < value <= most, key, value, f'from 1 to {most}')
    return config

  def _once(self, key: Any, make: Callable[[], Any]) -> Any:
    """What `make` makes, kept: compiled functions serve later calls."""
    if key not in self._compiled:
      self._compiled[key] = make()
    return self._compiled[key]
