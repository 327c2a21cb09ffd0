"""The stage `autoencoder` in parts: feature network, step, alarms and report."""

from typing import Any

import jax
import numpy as np

from ldm_jax import damaged_files, prng, processes
from ldm_jax.config.parsing import digest, to_plain
from ldm_jax.data import demonstration_split
from ldm_jax.data.batching import epoch_batch
from ldm_jax.data.cohorts import label_values
from ldm_jax.data.prefetch import Prefetcher
from ldm_jax.data.store import labelled
from ldm_jax.data.store.split import Split
from ldm_jax.evaluation import assess, intervals, label_maps
from ldm_jax.models.critics import perceptual
from ldm_jax.models.interop import pretrained
from ldm_jax.pipeline.run import Run
from ldm_jax.report import autoencoder_page
from ldm_jax.synthesis import residual_noise
from ldm_jax.training import (
  alarms,
  autoencoder_loss,
  checkpoint,
  codebook,
  encoding,
  feature_network,
  label_loss,
  loop,
  model_record,
  networks,
)
from ldm_jax.training.mesh import on_host, own_rows, put_rows
from ldm_jax.training.packing import Packing
from ldm_jax.training.plain_step import plain_step
from ldm_jax.training.state import create, flatten, parameter_hash, unflatten
from ldm_jax.types import PyTree

# Volumes that are measured for the report. A batch of them is looked at for alarms.
NUM_MEASURED = 64


def check(run: Run) -> None:
  """Refuses scans without labels that need some, and an autoencoder.init that is wrong.

  Raises:
    ValueError: naming what is missing or where the shapes differ.
  """
  config, section = run.config, run.config.autoencoder
  num_labels = len(run.label_values)
  for name in ('public', 'private'):
    if num_labels and name in run.prepared:
      labelled.check(run.prepared[name])
  if not section.init:
    return
  if num_labels and checkpoint.described(section.init, 'Autoencoder', 'init'):
    raise ValueError(
      f'autoencoder.init={section.init!r} is a converted autoencoder of scans alone, '
      "but data.labels is 'joint'. Set --config.autoencoder.init='' to train one with "
      "label maps, or --config.data.labels=''."
    )
  module, key = networks.autoencoder(section, num_labels), prng.key(0)
  shape = (1, *config.data.preprocess.shape, 1 + num_labels)
  x = jax.ShapeDtypeStruct(shape, np.float32)
  shapes = jax.eval_shape(lambda key, x: module.init(key, x, key)['params'], key, x)
  checkpoint.check_fits(section.init, shapes, 'autoencoder.init')
  model_record.check_init(config, run.spec.to_config())


def fit(run: Run, split: Split) -> PyTree:
  """Trains the autoencoder on a public split; returns its parameters, averaged."""
  config, section, mesh = run.config, run.config.autoencoder, run.mesh
  key = run.key('autoencoder')
  values = run.label_values
  shares = labelled.frequencies(split, values) if values else None
  weights = None if shares is None else label_loss.class_weights(shares)
  module = networks.autoencoder(section, len(values))
  features = _perceptual(run, split)
  x = run.inputs(split, np.arange(min(section.batch_size, len(split))))
  params = networks.initialise(module, key, x[:1], key)
  if section.init:
    params = checkpoint.load_into(section.init, params, 'autoencoder.init')
    if told := model_record.check_init(config, run.spec.to_config()):
      print(f'autoencoder: WARNING {told}')
  adversary = None
  if section.adversarial.weight:
    adversary = networks.discriminator(section)
    params['discriminator'] = networks.initialise(adversary, key, x[:1, ..., :1])
  flat = flatten(params)
  packing = Packing(flat, apart=autoencoder_loss.APART)
  optimizer = autoencoder_loss.optimizer(section, packing)

  def build(adversary):
    losses = autoencoder_loss.example_losses(
      module, section, features, adversary, weights
    )
    return plain_step(packing.losses(losses), optimizer, mesh, section.ema_decay)

  alone = build(None)
  together = build(adversary) if adversary else alone  # compiled once

  def batch_of(number):
    chosen = epoch_batch(len(split.ids), section.batch_size, config.seed, number, True)
    own = own_rows(mesh, len(chosen))
    batch = {'x': run.public_volumes(split, chosen, 'step', number, rows=own)}
    if module.num_codes:
      picked = codebook.picks(len(chosen), module.num_codes, config.seed, number)
      batch['picked'] = picked[own]
    return put_rows(mesh, batch, len(chosen))

  with Prefetcher(batch_of, section.steps) as batch:

    def take_step(current, number):
      step = alone if number < section.adversarial.start else together
      return step(current, {}, batch(number), key)

    final = loop.train(
      take_step,
      create(packing.pack(flat), optimizer),
      section.steps,
      mesh=mesh,
      inspect=_inspector(module, packing, x),
      **run.loop_arguments('autoencoder'),
    )
  params = unflatten(packing.unpack(final.ema))
  params.pop('discriminator', None)
  return params


def report(
  run: Run, split: Split, latents: np.ndarray, statistics: dict[str, Any]
) -> None:
  """Writes report/autoencoder.html, reconstruction.json and residual_noise.json.

  Args:
    run: of the stage `encode`.
    split: the public cohort.
    latents: (n,*space,c) posterior means of the split.
    statistics: `training.autoencoder_loss.latent_statistics` of them.
  """
  config, work = run.config, run.work
  module, params = run.autoencoder.module, {'params': run.autoencoder.params}
  num = min(NUM_MEASURED, len(split))
  x = split.volumes(np.arange(num))
  x_hat = encoding.apply_in_batches(
    run.autoencoder.decode, np.asarray(latents[:num]), config.autoencoder.batch_size
  )
  work.write_json(
    residual_noise.measure(x, x_hat), 'checkpoints', 'encode', 'residual_noise.json'
  )
  figures = {
    'reconstruction': assess.reconstruction(x, x_hat, split.patients[:num]),
    'latent': statistics,
    'alarms': [e for e in work.events() if 'alarm' in e],
  }
  if module.num_labels:
    figures['reconstruction'] |= _label_overlap(run, split, latents[:num])
  if module.num_codes:
    quantise = jax.jit(
      lambda z: module.apply(params, z, method=lambda m, z: m.quantizer.indices(z))
    )
    indices = encoding.apply_in_batches(
      quantise, np.asarray(latents), config.autoencoder.batch_size
    )
    figures['codebook'] = codebook.usage_statistics(indices, module.num_codes)
  work.write_json(figures, 'checkpoints', 'encode', 'reconstruction.json')
  path = autoencoder_page.write(
    work.path('report', 'autoencoder.html'),
    config.name,
    to_plain(config.autoencoder),
    figures,
    (x[..., 0], x_hat[..., 0]),
    work.events(),
    demonstration_split.warning(config.data),
    tuple(split.spacing_mm),
  )
  print(f'encode: what the autoencoder loses is shown in {path}')


def _label_overlap(run, split, latents):
  """Dice of decoded label maps with the true ones, by label; a figure each."""
  config, num = run.config, len(latents)
  logits = encoding.apply_in_batches(
    lambda z: run.autoencoder.decode_labelled(z)[..., 1:],
    np.asarray(latents),
    config.autoencoder.batch_size,
  )
  truth = run.inputs(split, np.arange(num))[..., 1:].argmax(-1)
  overlap = label_maps.dice(logits.argmax(-1), truth, len(run.label_values))
  names = label_values.named(run.label_values, config.evaluate.label_names)
  return {
    f'dice_{name}': intervals.mean_figure(*label_maps.known(column, split.patients))
    for name, column in zip([*names.values()][1:], overlap.T, strict=True)
  }


def _inspector(module, packing, x):
  """(step, state, metrics) -> alarms, of some public volumes x."""

  @jax.jit
  def codes_of(params):
    return module.apply({'params': params}, x, method='codes')

  def look(trained):
    params = unflatten(trained)
    params.pop('discriminator', None)
    mean, std = encoding.encoded(module, params, x)
    x_hat = encoding.decoded(module, params, mean)
    return mean, std, x_hat, codes_of(params) if module.num_codes else None

  def inspect(state, metrics):
    # Every process looks at its own copy, on its own device.
    own = state.trained if processes.count() == 1 else on_host(state.trained)
    trained = packing.unpack(own)
    mean, std, x_hat, codes = look(trained)
    found = alarms.of_parameters(trained)
    found += alarms.of_latents(mean, None if module.num_codes else std)
    found += alarms.of_reconstruction(x[..., :1], x_hat[..., :1])
    if module.num_codes:
      statistics = codebook.usage_statistics(codes, module.num_codes)
      found += alarms.of_codebook(statistics)
    if 'discriminator' in metrics:
      found += alarms.of_discriminator(metrics['discriminator'])
    return found

  return inspect


def _perceptual(run, split):
  """(x, x_hat, keys) -> (b,) in the features that the config names, or None."""
  section = run.config.autoencoder.perceptual
  if not section.weight:
    return None
  if section.network == 'public':
    features, mark = _public_features(run, split)
  else:
    features = pretrained.load(section.network, section.weights)
    mark = damaged_files.file_hash(section.weights)
  run.work.log('autoencoder', perceptual=section.network, sha256=mark)
  planes = tuple(section.planes)

  def distance(x, x_hat, keys):
    return perceptual.distance(features, x, x_hat, planes, section.share, keys)

  return distance


def _public_features(run, split):
  """The network learned from public volumes, and its hash; learned once and kept."""
  config, section = run.config, run.config.autoencoder.perceptual
  module, planes = networks.feature_network(config.autoencoder), tuple(section.planes)
  name = 'perceptual'
  key = run.key(name)

  def learn():
    return feature_network.fit(
      module,
      networks.initialise(
        module, key, feature_network.example(split.volumes([0]), planes)
      ),
      split.volumes,
      section,
      planes,
      mesh=run.mesh,
      key=key,
      seed=config.seed,
      num=len(split),
      run=run.loop_arguments(name),
    )

  mark = digest([split.digest(), to_plain(section), config.seed])
  params = run.learned_once(name, mark, learn)
  return feature_network.feature_maps(module, params), parameter_hash(params)
