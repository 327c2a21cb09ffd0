"""The pipeline: volumes -> cohort -> latents -> denoiser -> samples -> evidence.

Every stage is a function of (config, workdir) and can be called from a notebook as the
command line calls it. It reads what earlier stages left in the work folder, never
their memory. Read from top to bottom.
"""

from ldm_jax.config.parsing import to_plain
from ldm_jax.data import cohorts_of_config
from ldm_jax.data.batching import epoch_batch
from ldm_jax.data.inspection import grid_fit, tally
from ldm_jax.data.prefetch import Ahead
from ldm_jax.data.store import store
from ldm_jax.evaluation import assess
from ldm_jax.pipeline import audit as pipeline_audit
from ldm_jax.pipeline import (
  counterfactuals,
  drift_search,
  fine_tune,
  fit_autoencoder,
  fit_measuring_network,
  inputs,
  preflight,
  private_budget,
  runner,
  starting_point,
)
from ldm_jax.pipeline import encode as pipeline_encode
from ldm_jax.pipeline.doctor import examine
from ldm_jax.pipeline.inputs import splits
from ldm_jax.pipeline.preflight import CHECKS
from ldm_jax.pipeline.runner import stage
from ldm_jax.privacy import secret_key
from ldm_jax.report import content, index_page, model_card
from ldm_jax.synthesis import write_counterfactuals, write_forecasts, write_samples
from ldm_jax.training import (
  autoencoder_loss,
  checkpoint,
  denoising_loss,
  encoding,
  loop,
  model_record,
  networks,
  private_run,
  state,
)
from ldm_jax.training.mesh import make_mesh, put_examples, put_state
from ldm_jax.training.plain_step import plain_step
from ldm_jax.workfolder import WorkFolder, progress_bar


def run(config, workdir, stages=''):
  """Runs the named stages (all, when none is named) in the order of the pipeline."""
  names = runner.chosen(stages)
  preflight.check_process(config)
  work = WorkFolder(workdir)
  work.settle()
  kept = work.read_json('config.json')
  if kept is None:
    work.write_json(to_plain(config), 'config.json')
  for name in names:
    before = work.finished(name)
    globals()[name](config, workdir)
    for later in names if name == 'prepare' else ():
      for check in CHECKS.get(later, ()):
        check(config, work)
    # A command that is refused leaves the config of what is there.
    is_last, is_new = name == names[-1], work.finished(name) != before
    if (is_last or is_new) and kept not in (None, to_plain(config)):
      work.write_json(to_plain(config), 'config.json')
      kept = None
  if (work.root / 'report' / 'index.html').is_file():
    print(f'Report: {(work.root / "report" / "index.html").resolve()}')


def doctor(config, workdir):
  """Inspects the data and the config; trains nothing."""
  examine(config, WorkFolder(workdir), inputs.spec(config))


def audit(config, workdir):
  """Attacks the private step with canaries among public patients; spends nothing."""
  work = WorkFolder(workdir)
  runner.check_models('audit', config, work)
  pipeline_audit.run(config, work)


@stage()
def prepare(config, work):
  """Files -> preprocessed volumes in the store, patient by patient."""
  summary, told = {}, {}
  for name, cohort in cohorts_of_config.cohorts(config.data).items():
    with progress_bar(f'prepare {name}', len(cohort.records), 'volume') as advance:
      index = store.prepare(
        work.store,
        cohort,
        inputs.spec(config),
        max_bad_fraction=config.data.max_bad_fraction,
        progress=advance,
        workers=config.run.workers,
        index=work.path('store', f'{name}.json'),
      )
    for problem in index['problems']:
      if name not in (
        'private',
        'test',
      ):  # a patient's name belongs into the store, not into a log
        work.log('prepare', cohort=name, problem=problem)
      print(f'prepare {name}: left out {problem["id"]}: {problem["reason"]}')
    # What the slices of private scans say stays in the store.
    jumps = store.slices_in_words(index) if name != 'private' else []
    for warning in [*index['notes'], *index['warnings'][:5], *jumps]:
      print(f'prepare {name}: {warning}')
    told |= dict.fromkeys((*tally.unmatched(cohort), *tally.bare(cohort)))
    summary[name] = {'patients': len(cohort), 'left_out': len(index['problems'])}
  found = {
    name: store.open_split(work.store, name, index=work.found('store', f'{name}.json'))
    for name in summary
  }
  if 'public' in found:  # the size of private scans stays in the store
    told |= dict.fromkeys(
      f'{text}. --stages=doctor proposes a grid that fits'
      for text in grid_fit.poor(inputs.spec(config), grid_fit.of_split(found['public']))
    )
  for text in told:  # each once, last, so that it is seen
    print(f'prepare: WARNING {text}')
  store.check_distinct(found)
  fit_measuring_network.check(found)
  if 'private' in summary:
    private_budget.write_statement(config, work)
  return summary


@stage(*CHECKS['autoencoder'])
def autoencoder(config, work):
  """Learns the autoencoder from public volumes; private ones are refused."""
  split = splits(config, work).get('public')
  if split is None:
    raise ValueError(
      'data.public is empty, and an autoencoder fitted to data.private would leak it '
      'outside the privacy ledger: refused. Name a public cohort in data.public.'
    )
  params = fit_autoencoder.fit(config, work, split)
  work.write_json(
    {'spec': split.spec, 'sha256': inputs.spec(config).digest()},
    'checkpoints',
    'autoencoder',
    'preprocess.json',
  )
  model_record.write(config, work, 'autoencoder')
  checkpoint.save_params(work.checkpoints('autoencoder'), params)


@stage()
def encode(config, work):
  """Volumes -> posterior means in the store; statistics and report of public ones."""
  encoder, params = inputs.encoder(config, work)
  tag = state.parameter_hash(params)
  for name, split in splits(config, work).items():
    if name not in ('public', 'private'):
      continue
    latents = pipeline_encode.encode(config, work, split, tag, encoder, params)
    if name == 'public':
      statistics = autoencoder_loss.latent_statistics(latents, config.encode.std)
      work.write_json(statistics, 'checkpoints', 'encode', 'latent_statistics.json')
      fit_autoencoder.report(config, work, split, latents, statistics)
  return {'tag': tag}


@stage(*CHECKS['diffusion'])
def diffusion(config, work):
  """Learns the conditional denoiser from public latents."""
  split = splits(config, work)['public']
  section = config.diffusion
  mesh = make_mesh(**config.mesh)
  key = inputs.key(config, 'diffusion')
  latents, attributes = pipeline_encode.pretraining_examples(config, work, split)
  losses, params = _losses(config, split), _initial(config, split, latents)
  if section.init:
    unet = checkpoint.load_into(section.init, params['unet'], 'diffusion.init')
    params = {**params, 'unet': unet}
  optimizer = denoising_loss.optimizer(section.learning_rate, section.steps)
  step = plain_step(
    denoising_loss.example_losses(losses), optimizer, mesh, section.ema_decay
  )

  redraw = pipeline_encode.redraw(config, work, split)

  def batch_of(number):
    chosen = epoch_batch(len(latents), section.batch_size, config.seed, number, True)
    z = redraw(latents[chosen], chosen, number)
    return put_examples(mesh, {'z': z, 'attributes': attributes[chosen]})

  with Ahead(batch_of, section.steps) as batch:
    final = loop.train(
      lambda current, number: step(current, {}, batch(number), key),
      state.create(state.flatten(params), optimizer),
      section.steps,
      mesh=mesh,
      **inputs.loop_arguments(config, work, 'diffusion'),
    )
  model_record.write(config, work, 'diffusion', split.schema)
  checkpoint.save_params(work.checkpoints('diffusion'), state.unflatten(final.ema))


@stage(*CHECKS['adapt'])
def adapt(config, work):
  """Fine-tunes the denoiser on the private cohort, under privacy unless it is None."""
  split = splits(config, work).get('private')
  if split is None:
    print('adapt: data.private is empty, nothing to adapt to')
    return {'adapted': False}
  section = config.adapt
  folder = work.checkpoints('adapt')
  if not (folder / 'params').is_dir():
    latents = pipeline_encode.latents(config, work, split)
    drift = drift_search.find(config, work, split)
    losses, base = _losses(config, split, drift, adapting=True), {}
    if section.init == 'diffusion':
      params = checkpoint.load_params(work.checkpoints('diffusion'))
      base = state.flatten(params)
    else:
      params = _initial(config, split, latents)
    trained, frozen = starting_point.parameters(config, work, params)
    if section.privacy is not None:
      trained, frozen = starting_point.leave_out_idle(
        config, work, split, latents.shape[1:], trained, frozen
      )
    trained |= fine_tune.pair_parameters(config, split.schema, latents.shape[1:])
    frozen = put_state(make_mesh(**config.mesh), frozen)
    samples = starting_point.class_samples(config, work, params, folder)
    samples = put_state(make_mesh(**config.mesh), samples)
    fit = fine_tune.fit_plainly if section.privacy is None else fine_tune.fit_privately
    final = fit(config, work, split, latents, losses, trained, {**frozen, **samples})
    checkpoint.save_adapted(folder, final.ema, section.ema_decay, frozen, base)
  model_record.write(config, work, 'adapt', split.schema)
  secret_key.destroy_key(folder / private_run.KEY_FILE)
  private_budget.write_statement(config, work)
  return {'adapted': True, 'base': work.finished('diffusion')}


@stage(*CHECKS['sample'])
def sample(config, work):
  """Draws requests, generates their volumes and writes samples/ as NIfTI + table."""
  system, found = inputs.system(config, work)
  public = found.get('public')
  affine = inputs.sample_affine(public or next(iter(found.values())))
  return write_samples.write_samples(
    config, work, system, public, affine, inputs.key(config, 'sample')
  )


@stage()
def counterfactual(config, work):
  """Changes attributes of given scans and writes counterfactuals/."""
  return counterfactuals.run(config, work)


@stage()
def evaluate(config, work):
  """Measures samples, reconstructions and counterfactuals; writes metrics.json."""
  system, found = inputs.system(config, work)
  metrics, pairs = assess.assess(
    found,
    work.read_arrays(write_samples.SAMPLES),
    fit_measuring_network.network(config, work, system, found),
    lambda x: encoding.apply_in_batches(
      lambda part: system.decode(system.encode(part)), x, config.sample.batch_size
    ),
    system.schema,
    config.evaluate,
    work.read_arrays(write_counterfactuals.COUNTERFACTUALS),
    work.read_arrays(write_forecasts.FORECASTS),
  )
  work.write_json(metrics, 'metrics.json')
  work.write_json(
    {name: [list(map(float, side)) for side in pair] for name, pair in pairs.items()},
    'store',
    'control.json',
  )


@stage()
def report(config, work):
  """Writes report/index.html and the model card from what the other stages left."""
  system, found = inputs.system(config, work)
  gathered = content.gather(
    config, work, found, lambda x: system.decode(system.encode(x))
  )
  index_page.write(work.path('report', 'index.html'), gathered)
  work.write_text(model_card.markdown(gathered), 'report', 'model_card.md')


def _losses(config, split, drift=None, adapting=False):
  module, schedule = networks.denoiser(config, split.schema), networks.schedule(config)
  return denoising_loss.configured_losses(config, module, schedule, drift, adapting)


def _initial(config, split, latents):
  module, key = networks.denoiser(config, split.schema), inputs.key(config, 'init')
  return networks.initial_denoiser(module, key, latents.shape[1:], len(split.schema))
