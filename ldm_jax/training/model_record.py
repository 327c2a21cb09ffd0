"""The settings that a model was trained with, kept beside its parameters.

Whatever samples or edits with a model takes them from the config, so the config must
agree with them: another schedule or prediction gives other volumes and no error. A
stage that trains leaves them in checkpoints/<stage>/model.json; `check` compares.
"""

import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from ldm_jax import damaged_files
from ldm_jax.config import parsing
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.diffusion import drift
from ldm_jax.training import checkpoint
from ldm_jax.types import Config
from ldm_jax.workfolder import WorkFolder

FILE, PREPROCESS = 'model.json', 'preprocess.json'
NETWORK = (
  'diffusion.prediction',
  'diffusion.schedule',
  'diffusion.conditioner',
  'diffusion.model',
  'diffusion.text.num_tokens',
  'diffusion.text.width',
)
# Stage -> sections on which the meaning of its parameters depends.
SECTIONS = {
  'autoencoder': ('autoencoder.model',),
  'diffusion': NETWORK,
  'adapt': (*NETWORK, 'adapt.init', 'adapt.ema_decay', 'adapt.pairs.use'),
}
# How the same numbers are computed.
FREE = ('diffusion.model.remat',)
NUM_LISTED = 4


def write(
  config: Config, work: WorkFolder, stage: str, schema: Schema | None = None
) -> None:
  """Keeps the settings of a model that the running stage has trained.

  Args:
    config, work: of the run.
    stage: one of SECTIONS.
    schema: data.cohorts.attributes.Schema of its requests, if it takes any.
  """
  record = {'name': name(config, stage), 'settings': settings(config, stage)}
  if schema is not None:
    record['schema'] = json.loads(json.dumps(schema.to_config()))
  work.write_json(record, 'checkpoints', stage, FILE)


def read(work: WorkFolder, stage: str) -> Any:
  """What `write` kept of the finished model, or None of one from an older version."""
  return work.read_json('checkpoints', stage, FILE)


def name(config: Config, stage: str) -> str:
  """How tables, the log and the report call the model of a stage."""
  if stage != 'adapt':
    return {'diffusion': 'diffusion (public pre-training)'}.get(stage, stage)
  privacy = config.adapt.privacy
  spent = 'WITHOUT PRIVACY' if privacy is None else f'epsilon {privacy.epsilon:g}'
  return f'adapt ({config.adapt.method}, {spent})'


def settings(config: Config, stage: str) -> dict[str, Any]:
  """{key of the config: JSON-able value} that a model of this stage depends on."""
  sections = SECTIONS[stage]
  found = {
    key: json.loads(json.dumps(value))
    for key, value in parsing.flatten(config).items()
    if key not in FREE
    and any(f'{key}.'.startswith(f'{section}.') for section in sections)
  }
  if stage == 'autoencoder':
    found |= _of_labels(config)
    return found | _described(config.autoencoder, 'Autoencoder', 'autoencoder.init')
  found |= _described(config.diffusion, 'UNet', 'diffusion.init')
  # Another path of equal texts is no other model.
  found['diffusion.text.files'] = 'given' if config.diffusion.text.files else ''
  if 'mask' in config.diffusion.conditioner.by:
    found['evaluate.labels'] = list(config.evaluate.labels)
  if stage == 'adapt':
    found |= _of_pairs(config.adapt.pairs) | _of_drift(config.adapt.drift)
  return found


def check(config: Config, work: WorkFolder, stage: str) -> None:
  """Refuses a config that does not agree with the model of a finished stage.

  Keys that one of the two does not know, of another version, are not compared.

  Raises:
    ValueError: naming each key, its value and the model's.
  """
  kept, asked = read(work, stage)['settings'], settings(config, stage)
  if stage == 'autoencoder':
    kept = {'data.labels': '', **kept}  # of before there were any
  wrong = {key: kept[key] for key in sorted(kept.keys() & asked.keys())}
  wrong = {key: value for key, value in wrong.items() if value != asked[key]}
  if not wrong:
    return
  told = [
    f'config.{key} is {asked[key]!r}, but it was trained with {value!r}'
    for key, value in list(wrong.items())[:NUM_LISTED]
  ]
  more = f'; and {len(wrong) - NUM_LISTED} more' if len(wrong) > NUM_LISTED else ''
  raise ValueError(
    f'The model in {work.checkpoints(stage)} is another than the config describes: '
    f'{"; ".join(told)}{more}. Set {"it" if len(wrong) == 1 else "them"} back, or '
    f'train it again{again(stage, wrong)}.'
  )


def check_init(config: Config, learned: Mapping[str, Any]) -> str:
  """What differs between weights that another run has trained and this config.

  Only what loading them does not notice: the preprocessing of the volumes, and options
  of the autoencoder that change no shape.

  Args:
    config: of this run.
    learned: the preprocessing config dict of this run.

  Returns:
    One sentence, or '' where nothing differs or the folder does not say.

  Raises:
    ValueError: it differs, and autoencoder.steps is 0, so nothing would adapt to it; or
      a file of the folder is damaged.
  """
  folder, wrong = pathlib.Path(config.autoencoder.init), []
  if (folder / PREPROCESS).is_file():
    theirs = damaged_files.read_json(folder / PREPROCESS)['spec']
    mine = json.loads(json.dumps(learned))
    wrong += [
      f'data.preprocess.{key} is {mine[key]!r}, theirs was {theirs[key]!r}'
      for key in sorted(mine.keys() & theirs.keys())
      if mine[key] != theirs[key]
    ]
  if (folder / FILE).is_file():
    theirs = damaged_files.read_json(folder / FILE)['settings']
    mine = settings(config, 'autoencoder')
    wrong += [
      f'{key} is {mine[key]!r}, theirs was {theirs[key]!r}'
      for key in sorted(mine.keys() & theirs.keys() - {'autoencoder.init'})
      if mine[key] != theirs[key]
    ]
  if not wrong:
    return ''
  told = (
    f'The weights in config.autoencoder.init={str(folder)!r} were trained otherwise: '
    f'{"; ".join(wrong[:NUM_LISTED])}'
  )
  if not config.autoencoder.steps:
    raise ValueError(
      f'{told}. With autoencoder.steps=0 they are used as they are: set the config as '
      'it was for them, or train some steps.'
    )
  return f'{told}; the autoencoder must learn the difference in its steps.'


def check_schema(work: WorkFolder, stage: str, schema: Schema) -> None:
  """Refuses prepared data whose attributes mean something else to the model.

  Raises:
    ValueError: names, ranges or categories that are not those of training.
  """
  kept = (read(work, stage) or {}).get('schema')
  if kept is not None and kept != json.loads(json.dumps(schema.to_config())):
    raise ValueError(
      f'The model in {work.checkpoints(stage)} was trained with other attributes (or '
      f'other ranges of them) than the prepared data have: {", ".join(schema.names)}. '
      f'Set data.schema back and run prepare, or train it again{again(stage, ())}.'
    )


def again(stage: str, keys: Collection[str]) -> str:
  """': --stages=...' that train the model again, and what this costs."""
  stages = {'autoencoder': 'autoencoder,encode,diffusion,adapt'}.get(stage)
  if stages is None:
    of_adapt = stage == 'adapt' and keys and all(k.startswith('adapt.') for k in keys)
    stages = 'adapt' if of_adapt else 'diffusion,adapt'
  return f': --stages={stages} (adapting again spends privacy again)'


def _described(section, kind, key):
  """The folder of weights whose own options replace those of the config, if any."""
  is_described = checkpoint.described(section.init, kind, key) is not None
  return {key: str(section.init) if is_described else ''}


def _of_labels(config):
  """Whether label maps are part of the latent, and of which values."""
  found = {'data.labels': config.data.labels}
  if config.data.labels:
    found['evaluate.labels'] = list(config.evaluate.labels)
  return found


def _of_pairs(section):
  if not section.use:
    return {}
  names = ('gap', 'change_scale', 'both_directions')
  return {f'adapt.pairs.{n}': json.loads(json.dumps(section[n])) for n in names}


def _of_drift(section):
  """What training drifted by: sampling may take another value where it did not."""
  trains = section.training and drift.of(section.value) is not None
  value = section.value if trains and not section.search else 0.0
  found = {'value': json.loads(json.dumps(value)), 'search': section.search}
  if trains or section.search:
    names = ('training', 'variant', 'target')
    found |= {name: section[name] for name in names}
  return {f'adapt.drift.{name}': value for name, value in found.items()}
