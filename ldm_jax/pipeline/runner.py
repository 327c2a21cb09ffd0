"""The table of stages, and when a stage runs.

A stage is passed over when it has finished with the same settings on the same inputs:
both are in its fingerprint, which checkpoints/<stage>/done.json keeps. Otherwise its
checks are made, it runs beside what it replaces (see `workfolder`), and only a finished
run takes the place of the old one.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable

from ldm_jax import damaged_files, locks, processes, replace_results
from ldm_jax.data import cohorts_of_config, folder_scans
from ldm_jax.data.store import store
from ldm_jax.pipeline import (
  encode,
  export,
  fit_autoencoder,
  measure_utility,
  out_of_memory,
  preflight,
  pretrain,
  read_sections,
)
from ldm_jax.pipeline.run import Run
from ldm_jax.synthesis import system
from ldm_jax.training import model_record
from ldm_jax.types import Config
from ldm_jax.workfolder import WorkFolder, fingerprint

# Settings of the model that decide what sampling makes of its parameters.
MODEL = (
  *('autoencoder.model', 'diffusion.prediction', 'diffusion.schedule'),
  *('diffusion.conditioner', 'diffusion.model', 'diffusion.text'),
  *('adapt.init', 'adapt.ema_decay', 'adapt.pairs', 'adapt.drift'),
)
DRAWN = ('sample', 'counterfactual')  # stages that draw from the sampled model
AUTOENCODER, SAMPLED = ('autoencoder',), ('autoencoder', 'sampled')
Check = Callable[[Run], None]


@dataclasses.dataclass(frozen=True)
class Stage:
  """What a stage reads, uses and refuses; what it leaves is in `leaves`.

  Attributes:
    name: of the stage.
    reads: sections of the config, as `workfolder.fingerprint` takes them.
    after: stages that it builds on.
    models: stages whose models it uses. 'initial' is the denoiser that `adapt` starts
      from, if it was pre-trained; 'sampled' the one that sample.model names.
    checks: each raises ValueError for what the stage cannot do, before it writes.
    checks_if_new: the same, made only when no interrupted run is resumed.
    by_default: whether a command that names no stage runs it.
    memory: keys with other values of which an interrupted run goes on, written as those
      that `reads` leaves out: they change the memory it takes, not what it computes.
  """

  name: str
  reads: tuple[str, ...]
  after: tuple[str, ...] = ()
  models: tuple[str, ...] = ()
  checks: tuple[Check, ...] = ()
  checks_if_new: tuple[Check, ...] = ()
  memory: tuple[str, ...] = ()
  by_default: bool = True

  @property
  def leaves(self) -> tuple[str, ...]:
    """Files and folders of the work folder that it replaces when it has finished."""
    return (f'checkpoints/{self.name}', *replace_results.OUTPUTS.get(self.name, ()))

  def check(self, run: Run) -> None:
    """Makes the checks of a stage that is about to start."""
    for check in self.checks:
      check(run)
    if will_start_anew(self.name, run):
      for check in self.checks_if_new:
        check(run)


TABLE = (
  Stage('prepare', ('data',)),
  Stage(
    'autoencoder',
    ('autoencoder', 'augment', 'seed'),
    after=('prepare',),
    checks=(fit_autoencoder.check,),
  ),
  Stage('encode', ('autoencoder', 'encode'), ('autoencoder',), models=AUTOENCODER),
  Stage(
    'diffusion',
    ('diffusion', 'augment', 'seed'),
    after=('encode',),
    models=AUTOENCODER,
    checks=(pretrain.check,),
  ),
  Stage(
    'adapt',
    ('diffusion', 'adapt', 'seed'),
    after=('encode', 'diffusion'),
    models=('autoencoder', 'initial'),
    checks=(preflight.check_keeps_model, preflight.check_sizes, preflight.check_method),
    checks_if_new=(preflight.check_budget,),
    memory=('-adapt.privacy.chunk_size', '-adapt.privacy.microbatch'),
  ),
  Stage(
    'sample',
    ('sample', *MODEL, 'seed'),
    after=('adapt',),
    models=SAMPLED,
    checks=(preflight.check_requests,),
  ),
  Stage(
    'counterfactual',
    ('counterfactual', 'sample.ema_decay', 'sample.model', *MODEL, 'seed'),
    after=('adapt',),
    models=SAMPLED,
  ),
  Stage(
    'evaluate',
    ('evaluate', 'seed'),
    DRAWN,
    models=SAMPLED,
    checks=(measure_utility.check,),
  ),
  Stage('report', (), (*DRAWN, 'evaluate'), models=SAMPLED),
  Stage(
    'export',
    ('export', 'sample', 'counterfactual', *MODEL, 'seed'),
    after=('sample',),
    models=SAMPLED,
    checks=(export.check,),
    by_default=False,
  ),
)
STAGES = {stage.name: stage for stage in TABLE}
# What a command without --stages runs.
DEFAULT = tuple(stage.name for stage in TABLE if stage.by_default)


def chosen(stages: str) -> list[str]:
  """'a,b' -> ['a', 'b'] in the order of the pipeline; '' -> those of DEFAULT.

  Raises:
    ValueError: for a name that is no stage.
  """
  names = [name for name in stages.split(',') if name] or list(DEFAULT)
  unknown = set(names) - set(STAGES) - {'doctor', 'record', 'audit'}
  if unknown:
    raise ValueError(
      f'--stages names {", ".join(sorted(unknown))}; stages are '
      f'{", ".join(STAGES)}; and doctor, record and audit, which train nothing.'
    )
  order = list(STAGES)
  order.insert(order.index('adapt'), 'record')
  return [name for name in ('doctor', *order, 'audit') if name in names]


def stage(
  function: Callable[[Run], dict | None],
) -> Callable[[Config, str | os.PathLike], None]:
  """Turns `function(run)`, named as in STAGES, into a stage `(config, workdir)`.

  Its summary is kept in done.json and in the log.
  """
  name = function.__name__

  @functools.wraps(function, assigned=('__module__', '__name__', '__doc__'), updated=())
  def wrapped(config: Config, workdir: str | os.PathLike) -> None:
    with locks.work_folder(WorkFolder(workdir).root):
      run = Run.open(config, workdir)
      begun = processes.first(lambda: _begun(name, run))
      if begun is None:
        return
      run.work.enter(name)
      with out_of_memory.advised(name, config):
        summary = function(run) or {}
      processes.barrier()
      mark, built_on = begun

      def finish():
        run.work.finish(name, mark, built_on=built_on, **summary)
        run.work.log(name, event='end', **summary)

      processes.first(finish)
      run.work.leave(name)

  del wrapped.__wrapped__  # help() would show its signature
  return wrapped


def begin(name: str, run: Run, function: Callable[[Run], object]) -> None:
  """Begins a stage that is not up to date and calls `function`; later it resumes."""
  if processes.first(lambda: _begun(name, run)) is not None:
    run.work.enter(name)
    function(run)
    run.work.leave(name)


def _begun(name, run):
  """(mark, built on) of a run of the stage, which begins; None where it is done."""
  work = run.work
  check_models(name, run)
  mark, built_on = _fingerprint(name, run)
  if finished(name, work) == mark:
    damaged = _damaged(name, run)
    if damaged is None:
      print(f'{name}: up to date')
      return None
    print(f'{name}: {damaged} is missing or damaged and is made again')
  STAGES[name].check(run)
  work.restart(name, mark, _apart_from_memory(name, run))
  work.log(name, event='start')
  return mark, built_on


def will_start_anew(name: str, run: Run) -> bool:
  """Whether a stage will begin from nothing, once all before it are up to date."""
  apart = _apart_from_memory(name, run)
  if apart is not None and apart == run.work.interrupted(name, 'apart_from_memory'):
    return False
  return planned(name, run) not in (
    finished(name, run.work),
    run.work.interrupted(name),
  )


def finished(name: str, work: WorkFolder) -> str | None:
  """As `WorkFolder.finished`, but None for a damaged mark of what can be made again.

  Raises:
    ValueError: the mark of a trained model is damaged; the message says what to do.
  """
  try:
    return work.finished(name)
  except damaged_files.DamagedError:
    if name in damaged_files.TRAINED:
      raise
    return None


def planned(name: str, run: Run) -> str | None:
  """The fingerprint that a stage will have once all before it are up to date."""
  if name == 'prepare':
    return finished(name, run.work)
  inputs = {before: planned(before, run) for before in STAGES[name].after}
  return fingerprint(run.config, _sections(name, run.config), inputs)


def check_models(name: str, run: Run) -> None:
  """Refuses a config that the models which a stage uses were not trained with.

  Also results that do not belong together, because one was made again since.

  Args:
    name: of the stage, or 'audit'.
    run: of the config.

  Raises:
    ValueError: naming what differs and what to run.
  """
  work, models = run.work, _models(name, run)
  if name != 'prepare':
    run.check_prepared()
  for model in models:
    if work.finished(model) is None:
      continue  # `Run.require` says so, where it is needed
    if model_record.read(work, model) is not None:
      model_record.check(run.config, work, model)
    elif work.finished(model) != _fingerprint(model, run)[0]:
      raise ValueError(
        f'The model in {work.checkpoints(model)} was trained before models kept their '
        'settings, and the config is not the one that it was trained with, so it is '
        'not known to fit. Use that config (a config.json that was kept, or the flags '
        f'of that command), or train it again{model_record.again(model, ())}.'
      )
  for later, earlier in _built_on(name, models, run.config):
    done = work.read_json('checkpoints', later, 'done.json') or {}
    before = done.get('built_on', {}).get(earlier)
    if before is not None and before != work.finished(earlier):
      spends = ' (which spends privacy again)' if later == 'adapt' else ''
      raise ValueError(
        f'The stage {earlier} was run again, with another config, after {later}, which '
        f'belongs to what it left before. Run --stages={later},{name} again{spends}, '
        f'or {earlier} with its config of before.'
      )


def _models(name, run):
  """The stages whose models a stage uses."""
  if name == 'audit':
    return ('autoencoder', 'diffusion')
  found = {
    'initial': 'diffusion' if run.config.adapt.init == 'diffusion' else None,
    'sampled': system.sampled_stage(run.config, run.work),
  }
  models = (found.get(model, model) for model in STAGES[name].models)
  return tuple(filter(None, models))


def _built_on(name, models, config):
  """(later, earlier) stages, of which the later must have used the earlier as it is."""
  if not models or name == 'encode':
    return []
  pairs = [('encode', 'autoencoder')]
  is_adapted = 'adapt' in models
  if 'diffusion' in models or (is_adapted and config.adapt.init == 'diffusion'):
    pairs.append(('diffusion', 'encode'))
  if is_adapted:
    pairs.append(('adapt', 'encode'))
  if name in ('evaluate', 'report'):
    pairs += [(drawn, 'adapt') for drawn in DRAWN]
  if name == 'export':
    pairs.append(('sample', 'adapt'))
  if name == 'report':
    pairs += [('evaluate', drawn) for drawn in DRAWN]
  return pairs


def _apart_from_memory(name, run):
  """The fingerprint that a stage will have, but for its keys `memory`; None without."""
  memory = STAGES[name].memory
  if not memory or run.config.adapt.privacy is None:
    return None  # what a run without privacy began is cheap to begin anew
  inputs = {before: planned(before, run) for before in STAGES[name].after}
  return fingerprint(run.config, (*_sections(name, run.config), *memory), inputs)


def _damaged(name, run):
  """A file that a finished stage left, is needed and cannot be read; None if all can.

  Of a trained model whoever reads it says so: it is never trained again unasked.
  """
  if name in damaged_files.TRAINED:
    return None
  work = run.work
  folder = work.checkpoints(name)
  paths = sorted(folder.glob('*.json'))
  wrong = [path for path in paths if not damaged_files.is_whole(path)]
  if not wrong:
    left = work.read_json('checkpoints', name, 'outputs.json') or ()
    paths = [work.root / path for path in left]
    if name == 'prepare':
      config = run.config.data
      cohorts = [c for c in cohorts_of_config.NAMES if config[c].layout]
      paths += [work.found('store', f'{cohort}.json') for cohort in cohorts]
    wrong = [path for path in paths if not damaged_files.is_whole(path)]
  if not wrong and name == 'prepare':
    wrong = [path for path in map(functools.partial(_damaged_of, run), cohorts) if path]
  if not wrong and name == 'encode':
    wrong = encode.damaged(run)
  return wrong[0] if wrong else None


def _damaged_of(run, cohort):
  """The index of a prepared cohort, or a volume of it, that cannot be read; or None."""
  work = run.work
  index = work.found('store', f'{cohort}.json')
  try:
    split = store.open_split(work.store, cohort, spec=run.spec, index=index)
  except ValueError:
    return index
  return split.damaged_file()


def _sections(name, config):
  return read_sections.of(STAGES[name].reads, name, config)


def _fingerprint(name, run):
  """(mark of what a stage reads, marks of the stages that it builds on)."""
  config, work = run.config, run.work
  for before in STAGES[name].after:
    run.require(before)
  built_on = {before: work.finished(before) for before in STAGES[name].after}
  inputs = dict(built_on)
  if name == 'prepare':
    cohorts = cohorts_of_config.cohorts(config.data)
    inputs['files'] = cohorts_of_config.listing_digest(cohorts)
    inputs['store'] = store.VERSION
  if name == 'counterfactual':
    section = config.counterfactual
    inputs['files'] = (
      folder_scans.stamp(section.source),
      folder_scans.stamp(section.mask),
    )
  if name == 'export':
    inputs['shown'] = export.inputs(run)
  given = {'sample': ('requests', 'text'), 'counterfactual': ('text',)}.get(name, ())
  for key in given:
    path = pathlib.Path(config.sample[key]).expanduser()
    if config.sample[key] and path.is_file():
      # Its content, since the path stays when a table of requests is edited.
      inputs[f'sample.{key}'] = damaged_files.file_hash(path)
  return fingerprint(config, _sections(name, config), inputs), built_on
