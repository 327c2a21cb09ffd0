"""The order of the stages, their marks, and when a stage runs again."""

import functools

from ldm_jax.config import parsing
from ldm_jax.data import cohorts_of_config, folder_scans
from ldm_jax.data.store import store
from ldm_jax.pipeline.inputs import require
from ldm_jax.synthesis import system
from ldm_jax.training import drift_setting, model_record
from ldm_jax.workfolder import WorkFolder, fingerprint

# Settings of the model that decide what sampling makes of its parameters.
MODEL = (
  *('autoencoder.model', 'diffusion.prediction', 'diffusion.schedule'),
  *('diffusion.conditioner', 'diffusion.model', 'diffusion.text'),
  *('adapt.init', 'adapt.ema_decay', 'adapt.pairs', 'adapt.drift'),
)
# Stage -> (config sections it reads, stages it builds on).
DEPENDENCIES = {
  'prepare': (('data',), ()),
  'autoencoder': (('autoencoder', 'augment', 'seed'), ('prepare',)),
  'encode': (('autoencoder', 'encode'), ('autoencoder',)),
  'diffusion': (('diffusion', 'augment', 'seed'), ('encode',)),
  'adapt': (('diffusion', 'adapt', 'seed'), ('encode', 'diffusion')),
  'sample': (('sample', *MODEL, 'seed'), ('adapt',)),
  'counterfactual': (
    ('counterfactual', 'sample.ema_decay', 'sample.model', *MODEL, 'seed'),
    ('adapt',),
  ),
  'evaluate': (('evaluate', 'seed'), ('sample', 'counterfactual')),
  'report': ((), ('evaluate',)),
}
# Stages that use what the stage `adapt` left.
USERS = ('sample', 'counterfactual', 'evaluate', 'report')


def chosen(stages):
  """'a,b' -> ('a', 'b') in the order of the pipeline; '' -> all.

  Raises:
    ValueError: for a name that is no stage.
  """
  names = [name for name in stages.split(',') if name] or list(parsing.STAGES)
  unknown = set(names) - set(parsing.STAGES) - {'doctor', 'audit'}
  if unknown:
    raise ValueError(
      f'--stages names {", ".join(sorted(unknown))}; stages are '
      f'{", ".join(parsing.STAGES)}; and doctor and audit, which train nothing.'
    )
  return [name for name in ('doctor', *parsing.STAGES, 'audit') if name in names]


def stage(*checks):
  """Turns `function(config, work)` into a stage `(config, workdir)`.

  The stage is passed over when it was finished with the same config sections and the
  same inputs; an interrupted one resumes from what its folder holds.

  Args:
    checks: (config, work) -> None; each refuses, by a ValueError, what the stage cannot
      do, before anything is written.
  """

  def decorate(function):
    name = function.__name__

    @functools.wraps(function)
    def run(config, workdir):
      work = WorkFolder(workdir)
      work.settle()
      check_models(name, config, work)
      mark, built_on = _fingerprint(name, config, work)
      if work.finished(name) == mark:
        print(f'{name}: up to date')
        return
      for check in checks:
        check(config, work)
      work.restart(name, mark)
      work.log(name, event='start')
      summary = function(config, work) or {}
      work.finish(name, mark, built_on=built_on, **summary)
      work.log(name, event='end', **summary)

    return run

  return decorate


def will_start_anew(name, config, work):
  """Whether a stage will begin from nothing, once all before it are up to date."""
  return planned(name, config, work) not in (
    *(work.finished(name), work.interrupted(name)),
  )


def planned(name, config, work):
  """The fingerprint that a stage will have once all before it are up to date."""
  if name == 'prepare':
    return work.finished(name)
  sections, upstream = _sections(name, config), DEPENDENCIES[name][1]
  inputs = {before: planned(before, config, work) for before in upstream}
  return fingerprint(config, sections, inputs)


def check_models(name, config, work):
  """Refuses a config that the models which a stage uses were not trained with.

  Also models that do not belong together, because one was trained again since.

  Args:
    name: of the stage, or 'audit'.

  Raises:
    ValueError: naming what differs and what to run.
  """
  models, order = _models(name, config, work)
  for model in models:
    if work.finished(model) is None:
      continue  # `require` says so, where it is needed
    if model_record.read(work, model) is not None:
      model_record.check(config, work, model)
    elif work.finished(model) != _fingerprint(model, config, work)[0]:
      raise ValueError(
        f'The model in {work.checkpoints(model)} was trained before models kept their '
        'settings, and the config is not the one that it was trained with, so it is '
        'not known to fit. Use that config (a config.json that was kept, or the flags '
        f'of that command), or train it again{model_record.again(model, ())}.'
      )
  for later, earlier in order:
    done = work.read_json('checkpoints', later, 'done.json') or {}
    before = done.get('built_on', {}).get(earlier)
    if before is not None and before != work.finished(earlier):
      raise ValueError(
        f'The stage {earlier} was run again, with another config, after {later}, which '
        f'belongs to what it left before. Run --stages={later},... again (adapting '
        f'again spends privacy again), or {earlier} with its config of before.'
      )


def _models(name, config, work):
  """(stages whose models a stage uses, (later, earlier) stages that must fit)."""
  if name == 'encode':
    return ('autoencoder',), ()
  if name == 'diffusion':
    return ('autoencoder',), (('encode', 'autoencoder'),)
  order = (('encode', 'autoencoder'), ('diffusion', 'encode'))
  if name == 'audit' or (name == 'adapt' and config.adapt.init == 'diffusion'):
    return ('autoencoder', 'diffusion'), order
  if name == 'adapt':
    return ('autoencoder',), order[:1]
  if name not in USERS:
    return (), ()
  if system.sampled_stage(config, work) == 'diffusion':
    return ('autoencoder', 'diffusion'), order
  from_diffusion = config.adapt.init == 'diffusion'
  order = (*order[: 1 + from_diffusion], ('adapt', 'encode'))
  return ('autoencoder', 'adapt'), order


def _sections(name, config):
  sections = DEPENDENCIES[name][0]
  return (*sections, *drift_setting.unread(config)) if name == 'adapt' else sections


def _fingerprint(name, config, work):
  """(mark of what a stage reads, marks of the stages that it builds on)."""
  sections, upstream = _sections(name, config), DEPENDENCIES[name][1]
  for before in upstream:
    require(work, before)
  built_on = {before: work.finished(before) for before in upstream}
  inputs = dict(built_on)
  if name == 'prepare':
    inputs['files'] = cohorts_of_config.listing_digest(
      cohorts_of_config.cohorts(config.data)
    )
    inputs['store'] = store.VERSION
  if name == 'counterfactual':
    section = config.counterfactual
    inputs['files'] = (
      folder_scans.stamp(section.source),
      folder_scans.stamp(section.mask),
    )
  return fingerprint(config, sections, inputs), built_on
