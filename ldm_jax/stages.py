"""The pipeline: volumes -> cohort -> latents -> denoiser -> samples -> evidence.

Every stage is a function of (config, workdir) and can be called from a notebook as the
command line calls it. It reads what earlier stages left in the work folder, never
their memory. Read from top to bottom; `pipeline.runner.STAGES` says what each reads,
builds on, refuses and leaves.
"""

import contextlib
import os

from ldm_jax import locks, processes
from ldm_jax.config.parsing import to_plain
from ldm_jax.evaluation import assess
from ldm_jax.pipeline import audit as pipeline_audit
from ldm_jax.pipeline import (
  counterfactuals,
  drift_search,
  fine_tune,
  fit_autoencoder,
  fit_measuring_network,
  measure_utility,
  preflight,
  pretrain,
  private_budget,
  runner,
  starting_point,
)
from ldm_jax.pipeline import doctor as pipeline_doctor
from ldm_jax.pipeline import encode as pipeline_encode
from ldm_jax.pipeline import export as pipeline_export
from ldm_jax.pipeline import prepare as pipeline_prepare
from ldm_jax.pipeline.run import Run
from ldm_jax.pipeline.runner import stage
from ldm_jax.report import content, index_page, model_card
from ldm_jax.synthesis import (
  system,
  write_counterfactuals,
  write_forecasts,
  write_samples,
)
from ldm_jax.training import (
  autoencoder_loss,
  checkpoint,
  encoding,
  model_record,
  state,
)
from ldm_jax.types import Config
from ldm_jax.workfolder import WorkFolder


def run(config: Config, workdir: str | os.PathLike, stages: str = '') -> None:
  """Runs the named stages (all, when none is named) in the order of the pipeline.

  Args:
    config: checked by `config.checks.check`.
    workdir: folder of all results.
    stages: comma-separated names of stages.

  Raises:
    ValueError: what the user gave cannot work; nothing finished is lost.
  """
  names = runner.chosen(stages)
  preflight.check_process(config)
  root = WorkFolder(workdir).root
  # The doctor may look at a folder in which a run goes on.
  alone = locks.work_folder(root) if names != ['doctor'] else contextlib.nullcontext()
  with alone:
    _run(config, workdir, names)
  path = root / 'report' / 'index.html'
  if path.is_file():
    print(f'Report: {path.resolve()}')


def _run(config, workdir, names):
  opened = Run.open(config, workdir)
  work, plain = opened.work, to_plain(config)

  def begin():
    if {'prepare', 'adapt'} <= set(names):
      preflight.check_keeps_model(opened)
    kept = work.read_json('config.json')
    if kept is None:
      work.write_json(plain, 'config.json')
    return kept is not None and kept != plain

  def check_later():
    prepared = Run.open(config, workdir)
    for later in names:
      if later in runner.STAGES:
        runner.STAGES[later].check(prepared)

  is_other = processes.first(begin)
  for name in names:
    before = processes.first(lambda name=name: runner.finished(name, work))
    STAGES[name](config, workdir)
    if name == 'prepare':
      processes.first(check_later)
    # A command that is refused leaves the config of what is there.
    after = processes.first(lambda name=name: runner.finished(name, work))
    if (name == names[-1] or after != before) and is_other:
      work.write_json(plain, 'config.json')
      is_other = False


def doctor(config: Config, workdir: str | os.PathLike) -> None:
  """Inspects the data and the config; trains nothing."""

  def examine():
    pipeline_doctor.examine(Run.open(config, workdir))

  processes.first(examine)


@stage
def prepare(run: Run) -> dict:
  """Files -> preprocessed volumes in the store, patient by patient."""
  return pipeline_prepare.prepare(run)


@stage
def autoencoder(run: Run) -> None:
  """Learns the autoencoder from public volumes; private ones are refused."""
  split = run.splits.get('public')
  if split is None:
    raise ValueError(
      'data.public is empty, and an autoencoder fitted to data.private would leak it '
      'outside the privacy ledger: refused. Name a public cohort in data.public.'
    )
  params = fit_autoencoder.fit(run, split)
  preprocessing = {'spec': split.spec, 'sha256': run.spec.digest()}
  place = ('checkpoints', 'autoencoder', model_record.PREPROCESS)
  run.work.write_json(preprocessing, *place)
  model_record.write(run.config, run.work, 'autoencoder')
  checkpoint.save_params(run.work.checkpoints('autoencoder'), params)


@stage
def encode(run: Run) -> dict:
  """Volumes -> posterior means in the store; statistics and report of public ones."""
  tag, splits = state.parameter_hash(run.autoencoder.params), run.splits
  for name in pipeline_encode.ENCODED:
    if name not in splits:
      continue
    latents = pipeline_encode.encode(run, splits[name], tag)
    if name == 'public':
      statistics = autoencoder_loss.latent_statistics(latents, run.config.encode.std)
      place = ('checkpoints', 'encode', 'latent_statistics.json')
      run.work.write_json(statistics, *place)
      fit_autoencoder.report(run, splits[name], latents, statistics)
  return {'tag': tag}


@stage
def diffusion(run: Run) -> None:
  """Learns the conditional denoiser from public latents."""
  note = preflight.note_on_noise(run.config)
  if note:
    print(f'diffusion: {note}')
  params = pretrain.fit(run, run.splits['public'])
  model_record.write(run.config, run.work, 'diffusion', run.schema)
  checkpoint.save_params(run.work.checkpoints('diffusion'), params)


def record(config: Config, workdir: str | os.PathLike) -> None:
  """Adds the releases of `adapt` to the ledger, where it goes on; trains nothing."""
  if not config.data.private.layout:
    print('record: data.private is empty, nothing to record')
    return
  with locks.work_folder(WorkFolder(workdir).root):
    runner.begin('adapt', Run.open(config, workdir), private_budget.plan)


@stage
def adapt(run: Run) -> dict:
  """Fine-tunes the denoiser on the private cohort, under privacy unless it is None."""
  split = run.splits.get('private')
  if split is None:
    print('adapt: data.private is empty, nothing to adapt to')
    return {'adapted': False}
  path = run.work.checkpoints('adapt') / 'params'
  if not processes.first(path.is_dir):
    latents = fine_tune.private_latents(run, split)
    drift = drift_search.find(run)
    start = starting_point.find(run, latents.shape[1:], drift)
    final = fine_tune.taken(run, start)
    if final is None:
      plan = private_budget.plan(run)  # in the ledger before the first step
      final = fine_tune.fit(run, split, latents, start, plan)
    fine_tune.save(run, final, start)
  model_record.write(run.config, run.work, 'adapt', run.schema)
  processes.first(lambda: private_budget.finish(run))
  return {'adapted': True, 'base': run.work.finished('diffusion')}


@stage
def sample(run: Run) -> dict:
  """Draws requests, generates their volumes and writes samples/ as NIfTI + table."""
  return write_samples.write_samples(
    run.config,
    run.work,
    run.system,
    run.splits.get('public'),
    run.sample_affine,
    run.key('sample'),
  )


@stage
def counterfactual(run: Run) -> dict:
  """Changes attributes of given scans and writes counterfactuals/."""
  return counterfactuals.change(run)


@stage
def evaluate(run: Run) -> None:
  """Measures samples, reconstructions and counterfactuals; writes metrics.json."""
  config, work = run.config, run.work
  samples = work.read_arrays(write_samples.SAMPLES)
  if samples is None:
    raise ValueError(
      f'{work.root / "store" / write_samples.SAMPLES} is missing, which the stage '
      'sample leaves and evaluate measures. Run both: --stages=sample,evaluate.'
    )
  network = fit_measuring_network.network(run)
  metrics, pairs = assess.assess(
    run.splits,
    samples,
    network,
    lambda x: encoding.apply_in_batches(
      run.reconstruct, x, config.autoencoder.batch_size
    ),
    run.schema,
    config.evaluate,
    run.sample_spacing,
    work.read_arrays(write_counterfactuals.COUNTERFACTUALS),
    work.read_arrays(write_forecasts.FORECASTS),
    config.seed,
    system.sampled_stage(config, work),
  )
  if config.evaluate.utility.use:
    metrics['utility'] = measure_utility.measure(run, network)
  work.write_json(metrics, 'metrics.json')
  control = {
    name: [list(map(float, side)) for side in pair] for name, pair in pairs.items()
  }
  work.write_json(control, 'store', 'control.json')


@stage
def report(run: Run) -> None:
  """Writes report/index.html and the model card from what the other stages left."""

  def write():
    privacy = run.config.adapt.privacy
    if privacy is not None and privacy.choice:
      private_budget.write_statement(run)  # it may have been chosen since
    gathered = content.gather(
      run.config, run.work, run.splits, run.reconstruct, run.sample_spacing
    )
    index_page.write(run.work.path('report', 'index.html'), gathered)
    run.work.write_text(model_card.markdown(gathered), 'report', 'model_card.md')

  processes.first(write)


@stage
def export(run: Run) -> dict:
  """Writes shareable/ and shareable.zip: the model and samples that may leave."""
  return processes.first(lambda: pipeline_export.write(run))


def audit(config: Config, workdir: str | os.PathLike) -> None:
  """Attacks the private step with canaries among public patients; spends nothing."""

  def attack():
    run = Run.open(config, workdir)
    runner.check_models('audit', run)
    pipeline_audit.attack(run)

  processes.first(attack)


STAGES = {
  function.__name__: function
  for function in (
    *(doctor, prepare, autoencoder, encode, diffusion, record, adapt, sample),
    *(counterfactual, evaluate, report, export, audit),
  )
}
