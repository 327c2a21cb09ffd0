"""Pictures of equal seconds: our recipe beside MONAI's on the same phantom patients.

    python benchmarks/quality.py [--config=configs/cardiac.py:tiny] [--times=1|3]
        [--out=FOLDER] [--seed=0] [--rates=1e-3,5e-4] [--average] [--num=192]

Ours runs its stages on the public cohort of a phantom config, with the settings of that
config; with --times=3 they take three times the steps. MONAI's tutorial recipe
(`monai_recipe.py`) then trains on the same volumes, in the same process, for as many
seconds as ours took: its autoencoder as long as ours, its denoiser as long as ours with
encoding. Compilation counts as training.

Both draw `--num` volumes for the same requests, and the measuring network of the config
judges both against new patients of the same site, on whom nothing was trained. MONAI
draws without guidance and with ours; the better one counts. Half of the new patients
are the reference, the others are what a perfect generator would draw (`real`), of whom
there must be enough for `--num` volumes; else fewer samples are judged.

Prints one line of JSON (progress on stderr) and leaves pictures in --out: real.png,
ours.png, monai.png, one volume a column. `frechet_excess_ratio` is (MONAI - real) /
(ours - real) of the Frechet distances; None where ours is not above real.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import tempfile
import time

import common
import jax
import numpy as np

from ldm_jax import stages
from ldm_jax.config import checks, parsing
from ldm_jax.evaluation import (
  control,
  frechet,
  image_similarity,
  measuring_network,
  two_sample,
)
from ldm_jax.pipeline import fit_measuring_network
from ldm_jax.pipeline.run import Run
from ldm_jax.report import figures
from ldm_jax.synthesis import write_samples
from ldm_jax.training import encoding

# Of the new patients: unlike every seed of a cohort in configs/.
NEW_PATIENTS_SEED = 1_000_003
QUICK = 1.0  # most seconds of each of MONAI's trainings with --quick


def settings(options):
  """The config: public patients, as many new ones of their site, nobody private."""
  config = parsing.load(options.config)
  data = config.data
  if not data.public.layout.startswith('phantom'):
    raise SystemExit(
      f'data.public of {options.config} is {data.public.layout!r}; expected a phantom, '
      'which can draw any number of new patients of one site'
    )
  data.test = data.public.copy_and_resolve_references()
  with data.test.options.unlocked():
    data.test.options.update(
      name='test', seed=NEW_PATIENTS_SEED, num_patients=2 * options.patients
    )
  data.private.layout = ''
  data.labels = ''  # the peer sees scans and attributes alone
  config.seed = options.seed
  config.sample.num, config.sample.sweep = options.num, ()
  config.autoencoder.steps *= options.times
  config.diffusion.steps *= options.times
  parsing.override(config, dict(text.split('=', 1) for text in options.set))
  return checks.check(config)


def train_ours(config, folder):
  """Runs our stages up to the samples: -> (Run, volumes, requests, figures)."""
  seconds = {}
  with contextlib.redirect_stdout(sys.stderr):
    for name in ('prepare', 'autoencoder', 'encode', 'diffusion', 'adapt', 'sample'):
      began = time.perf_counter()
      stages.STAGES[name](config, folder)
      seconds[name] = time.perf_counter() - began
  run = Run.open(config, folder)
  samples = run.work.read_arrays(write_samples.SAMPLES)
  spent = {
    'autoencoder': (config.autoencoder, seconds['autoencoder']),
    'denoiser': (config.diffusion, seconds['encode'] + seconds['diffusion']),
  }
  found = {}
  for name, (section, took) in spent.items():
    examples = section.steps * section.batch_size
    found[name] = {
      'steps': section.steps,
      'examples': examples,
      'seconds': round(took, 2),
      'examples_per_second': round(examples / took, 2),
    }
  return run, samples['volumes'], samples['requests'], found


def judge(run, network, reference, volumes, requests, options, sources=None):
  """Figures of volumes (n,d,h,w,1) against the reference (volumes, patients).

  `sources` are the patients of the volumes, where these are real.
  """
  real, patients = reference
  features = network.features(real), network.features(volumes)
  section = run.config.evaluate
  told = section.two_sample
  rng = np.random.default_rng(options.seed)
  told_apart = two_sample.auc(
    real,
    volumes,
    rng,
    patients=patients,
    sources=sources,
    **{name: told[name] for name in two_sample.SETTINGS if name != 'channels'},
    channels=tuple(told.channels),
  )
  found = {
    'frechet': frechet.frechet_distance(*features, patients, sources, 50),
    'two_sample_auc': told_apart['auc'],
    'two_sample_interval': told_apart['interval'],
    'ms_ssim': image_similarity.diversity(volumes[..., 0])['value'],
    'pearson_r': {},
  }
  found['frechet'] = {name: found['frechet'][name] for name in ('value', 'low', 'high')}
  if network.measures and requests is not None:
    labels = network.labels(volumes)
    spacing = run.sample_spacing
    measured = measuring_network.measure(section.measures, labels, spacing)
    for entry in section.measures:
      if measuring_network.has_request(entry, run.schema):
        asked = measuring_network.requested(entry, run.schema, requests)
        agreed = control.agreement(asked, measured[entry['name']], num_resamples=50)
        found['pearson_r'][entry['name']] = agreed['pearson_r']
  return found


def psnr(run, reconstruct, x):
  """Mean PSNR in dB of reconstructed volumes (n,d,h,w,1)."""
  batch = run.config.sample.batch_size
  x_hat = encoding.apply_in_batches(reconstruct, x, batch)
  return float(image_similarity.psnr(x[..., 0], x_hat[..., 0]).mean())


def compare(options):
  """All figures, and the volumes to show."""
  peer = common.Peer('cpu')  # says what to install where MONAI is missing
  import monai_recipe

  config = settings(options)
  with tempfile.TemporaryDirectory() as folder:
    run, volumes, requests, ours = train_ours(config, options.workdir or folder)
    train, new = run.splits['public'], run.splits['test']
    x_new, patients = new.volumes(np.arange(len(new))), np.asarray(new.patients)
    is_reference = np.isin(patients, new.patient_names[: options.patients])
    reference = x_new[is_reference], patients[is_reference]
    chosen = np.flatnonzero(~is_reference)[: options.num]
    rest, owners = x_new[chosen], patients[chosen]
    # A distance depends on how many volumes it is computed from: as many of all.
    volumes, requests = volumes[: len(rest)], requests[: len(rest)]
    with contextlib.redirect_stdout(sys.stderr):
      network = fit_measuring_network.network(run)
    judged = lambda *x: judge(run, network, reference, *x[:2], options, *x[2:])
    real = judged(rest, new.attributes[chosen], owners)
    ours |= judged(volumes, requests)
    ours['psnr'] = psnr(run, run.reconstruct, reference[0])

    sizes = monai_recipe.TINY if options.quick else monai_recipe.Sizes()
    seconds = [ours[name]['seconds'] for name in ('autoencoder', 'denoiser')]
    seconds = [min(value, QUICK) if options.quick else value for value in seconds]
    recipe = monai_recipe.Recipe(sizes, len(run.schema), options.seed)
    recipe.fit(
      train.volumes(np.arange(len(train))),
      monai_recipe.context(train.attributes, run.schema),
      seconds,
      options.rates,
      options.average,
    )
    asked = monai_recipe.context(requests, run.schema)
    drawn = {
      scale: recipe.sample(asked, run.spec.shape, scale, options.seed)
      for scale in dict.fromkeys((1.0, float(config.sample.guidance)))
    }
    guided = {scale: judged(x, requests) for scale, x in drawn.items()}
    best = min(guided, key=lambda scale: guided[scale]['frechet']['value'])
    monai = {
      **recipe.figures,
      **guided[best],
      'psnr': psnr(run, recipe.reconstruct, reference[0]),
      'guidance': best,
      'frechet_by_guidance': {
        str(scale): found['frechet']['value'] for scale, found in guided.items()
      },
      'rates': options.rates,
      'average': options.average,
    }
  excess = [
    side['frechet']['value'] - real['frechet']['value'] for side in (monai, ours)
  ]
  found = {
    'benchmark': 'quality',
    'frechet_excess_ratio': round(excess[0] / excess[1], 3) if excess[1] > 0 else None,
    'two_sample_auc': {
      name: round(side['two_sample_auc'], 3)
      for name, side in (('ours', ours), ('monai', monai), ('real', real))
    },
    'times': options.times,
    'ours': ours,
    'monai': monai,
    'real': real,
    'num_samples': len(volumes),
    'num_reference': len(reference[0]),
    'config': options.config,
    'set': options.set,
    'seed': options.seed,
    **common.circumstances(1, 'cpu', peer),
  }
  return found, {'real': rest, 'ours': volumes, 'monai': drawn[best]}


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', default='configs/cardiac.py:tiny')
  parser.add_argument('--times', type=int, default=1, help='as many times our steps')
  parser.add_argument('--out', default='', help='folder for the pictures')
  parser.add_argument('--workdir', default='', help='new folder that keeps our run')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--num', type=int, default=192, help='samples of each side')
  parser.add_argument('--patients', type=int, default=96, help='of the reference')
  parser.add_argument(
    '--rates',
    type=lambda text: [float(word) for word in text.split(',')],
    default=[1e-3, 5e-4],
    help="MONAI's learning rates, autoencoder,denoiser; its tutorial has 1e-4,1e-4",
  )
  parser.add_argument('--average', action='store_true', help='average for MONAI, too')
  parser.add_argument('--set', action='append', default=[], help='KEY=VALUE of config')
  parser.add_argument(
    '--quick', action='store_true', help='MONAI small and for a second'
  )
  options = parser.parse_args()
  if len(options.rates) != 2 or min(options.patients, options.num) < 4:
    parser.error('expected two --rates, and at least 4 of --patients and --num')
  folder = pathlib.Path(options.workdir or '.')
  if options.workdir and folder.exists() and any(folder.iterdir()):
    parser.error(f'--workdir={folder} is not empty; a resumed run has no true seconds')
  jax.config.update('jax_platforms', 'cpu')
  found, shown = compare(options)
  if options.out:
    folder = pathlib.Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, volumes in shown.items():
      picture = figures.montage(volumes, num_columns=12, limits=(0.0, 1.0))
      (folder / f'{name}.png').write_bytes(picture)
  print(json.dumps(found))


if __name__ == '__main__':
  main()
