"""T1-weighted brains with age, sex and diagnosis: phantom or real scans, isotropic.

  ldm-jax --config=configs/brain.py:tiny --workdir=W             # minutes on 2 cores
  ldm-jax --config=configs/brain.py:small,data=ixi,root=IXI_FOLDER --workdir=W
  ldm-jax --config=configs/brain.py:small,data=oasis,root=OASIS_FOLDER --workdir=W
  ldm-jax --config=configs/brain.py:tiny,autoencoder=wavelet,visits=4 --workdir=W
  python launch/sweep.py configs/brain.py:tiny W --group=drift   # docs/drift-tables.md

`data` is phantom, ixi, oasis, adni or bids; the last four need `root`, and `schema`
follows the layout (docs/data.md). The counterfactual is the brain ten years older; of
`--config.counterfactual.set.age='+5|+10|+20'` the patients take one each, in turn. With
`visits` above 1 the patients come back every five years, and the model learns from the
pairs (docs/counterfactuals-pairs.md); real cohorts have the visits that they have. So
trained, `:tiny` makes counterfactuals alone: its synthetic scans are noise. With
`effect=ventricles_ml` (hippocampi_ml, cortex_mm) a size of the phantom, which else
follows from age, sex and disease, is an attribute, too, and what the counterfactual
changes.

Phantom, tiny, effect=ventricles_ml, public model, nine minutes on 2 cores
(docs/recipe.md): reconstruction of held-out heads 25.6 dB; a classifier tells samples
from real heads with an AUC of 0.51, Frechet distance 385 (real halves 394), r of the
ventricles 0.81. That is still too coarse for a counterfactual without pairs, whose
changes are smaller than the error of reconstruction.
"""

from ldm_jax.config import ablations, presets
from ldm_jax.config.autoencoder import use_recipe
from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import parse_arg
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.phantom.brain.population import EFFECTS, SCHEMA

LAYOUTS = ('ixi', 'oasis', 'adni', 'bids')
# Background, CSF, grey, white, lateral ventricles, hippocampi, cerebellum and stem.
PHANTOM_LABELS = (0, 1, 2, 3, 4, 5, 6)
# Effects that may be requested beside their causes, and the counterfactual's change.
CHANGES = {'ventricles_ml': '+15', 'hippocampi_ml': '-1', 'cortex_mm': '-0.5'}
LABEL_NAMES = (
  *('background', 'CSF', 'grey matter', 'white matter', 'lateral ventricles'),
  *('hippocampi', 'cerebellum and stem'),
)
SIZES = {
  # (slices, rows, columns), mm: 192 x 224 x 180 mm hold a head.
  'tiny': ((24, 28, 24), (8.0, 8.0, 8.0)),
  'small': ((48, 56, 48), (4.0, 4.0, 4.0)),
  'full': ((96, 112, 96), (2.0, 2.0, 2.0)),
}
PATIENTS = {
  'tiny': {'public': 192, 'private': 64, 'test': 64, 'public_test': 64},
  'small': {'public': 128, 'private': 128, 'test': 32, 'public_test': 32},
  'full': {'public': 2000, 'private': 2000, 'test': 400},
}


def get_config(arg=''):
  """Config for `preset[,data=phantom|ixi|...,root=...][,autoencoder=kl|vq|...]`."""
  args = parse_arg(
    arg,
    ('tiny', 'small', 'full'),
    data='phantom',
    root='',
    autoencoder='kl',
    visits=1,
    effect='',
  )
  config = defaults()
  config.name = f'brain-{args.data}-{args.preset}'
  shape, spacing_mm = SIZES[args.preset]
  config.data.preprocess.shape = shape
  if args.data == 'phantom':
    _phantom(config, args, shape, spacing_mm)
  elif args.data in LAYOUTS:
    _real(config, args, spacing_mm)
  else:
    raise ValueError(
      f'configs/brain.py has data=phantom and data={"|".join(LAYOUTS)}, not '
      f'data={args.data}. For any other folder of NIfTI files use configs/folder.py.'
    )
  {'tiny': _tiny, 'small': _small, 'full': _full}[args.preset](config)
  use_recipe(config, args.autoencoder)
  if args.data == 'phantom' and args.preset == 'tiny':
    presets.fine_tune_biases(config)
  with config.counterfactual.set.unlocked():
    if args.effect:
      config.counterfactual.set[args.effect] = CHANGES[args.effect]
    else:
      config.counterfactual.set.age = '+10'
  if args.visits > 1:
    _longitudinal(config, args)
  # ADNI writes its names in capitals.
  config.sample.sweep = ('AGE',) if args.data == 'adni' else ('age',)
  return config


def sweep():
  """Groups of arms: does pre-training pay, does drift, also under privacy?"""
  return {
    'pretraining': ablations.pretraining(),
    'drift': ablations.drift(ablations.FITS),
    'drift_longer': ablations.drift(ablations.LONGER),
    'private_drift': ablations.private_drift(),
    'utility': ablations.utility(attributes=('age',)),
  }


def _phantom(config, args, shape, spacing_mm):
  numbers = dict(PATIENTS[args.preset])
  if args.visits > 1:
    # The public people are too young to show a network the ventricles of the old.
    numbers['measuring'] = 300
  presets.use_phantom(
    config,
    'phantom_brain',
    numbers,
    shape=shape,
    spacing_mm=spacing_mm,
    # More visits make pairs for adapt.pairs (docs/counterfactuals.md).
    num_visits=1,
    interval_years=4.0,
  )
  if args.effect:
    if args.effect not in CHANGES:
      raise ValueError(
        f'effect={args.effect} is not known; choose one of {", ".join(CHANGES)}.'
      )
    schema = Schema((*SCHEMA, EFFECTS[args.effect]))
    config.data.schema = tuple(schema.to_config())
  config.evaluate.labels = PHANTOM_LABELS
  config.evaluate.label_names = LABEL_NAMES
  config.evaluate.within_patient.same = (
    {'name': 'intracranial_volume', 'kind': 'volume', 'classes': PHANTOM_LABELS[1:]},
  )
  # Where the schema does not name them, what was asked for is the true change.
  config.evaluate.measures = tuple(
    {'name': name, 'kind': 'volume', 'classes': (index,), 'attributes': attributes}
    for name, index, attributes in (
      ('ventricles', 4, ('ventricles_ml',)),
      ('hippocampi', 5, ('hippocampi_ml',)),
      ('grey', 2, ()),
      ('white', 3, ()),
    )
  )


def _longitudinal(config, args):
  """Pairs of visits teach the change itself (docs/counterfactuals-pairs.md)."""
  pairs = config.adapt.pairs
  pairs.use = pairs.both_directions = True
  # The denoiser has a new input, the source: all its parameters learn.
  config.adapt.method, config.adapt.optimizer = 'full', 'adam'
  config.adapt.privacy.clip_norm = 1.0
  # The deviation between two of a phantom's scans, mostly noise, in wavelet latents.
  pairs.change_scale = 0.06
  # Nothing here guides by the condition; without a source `sample` still works.
  pairs.drop_condition = pairs.drop_both = 0.0
  config.adapt.examples_per_patient, config.adapt.schedule = 1, 'cosine'
  # What the figures of docs/counterfactuals-pairs.md were found with.
  schedule = config.diffusion.schedule
  schedule.name, schedule.num_timesteps, schedule.beta_end = 'linear', 150, 7e-2
  schedule.zero_terminal_snr = False
  config.diffusion.optimizer, config.diffusion.learning_rate = 'adam', 1e-3
  # At high noise the network must predict the change, not finish what is there.
  config.adapt.times.density, config.adapt.times.logit_mean = 'logit_normal', 1.0
  config.counterfactual.editor, config.counterfactual.source = 'pairs', 'test'
  config.counterfactual.guidance, config.counterfactual.least_change = 1.0, 3.0
  # Few steps, several noises: their mean is nearer to what the source tells.
  config.counterfactual.steps, config.counterfactual.pairs.num_draws = 10, 4
  if args.data == 'phantom':
    for name in ('private', 'test', 'measuring'):
      options = config.data[name].options
      options.num_visits, options.interval_years = args.visits, 5.0
    # The change is small beside the scanner's noise: it takes many patients.
    config.data.private.options.num_patients = 800
    if args.preset == 'tiny':
      config.diffusion.model.channels, config.diffusion.steps = (16, 32), 500
      config.adapt.steps, config.adapt.privacy.batch_size = 300, 64
      config.adapt.learning_rate, config.adapt.ema_decay = 1e-3, (0.995,)
      config.evaluate.segmenter.steps = 1800


def _real(config, args, spacing_mm):
  if not args.root:
    raise ValueError(
      f'data={args.data} needs the folder of the scans: '
      f'--config=configs/brain.py:{args.preset},data={args.data},root=FOLDER.'
    )
  for name in ('public', 'private', 'test'):
    section = config.data[name]
    section.layout, section.root = args.data, args.root
  config.data.preprocess.spacing_mm = spacing_mm
  # Scanners place heads differently in their field of view.
  config.data.preprocess.centre = 'mass'


def _isotropic(config, channels):
  kernel, stride = (3, 3, 3), (2, 2, 2)
  presets.use_kernel(config, kernel, stride, channels)
  config.evaluate.segmenter.patch = stride
  config.evaluate.segmenter.kernels = (kernel,) * 2
  config.evaluate.segmenter.strides = (stride,)


def _tiny(config):
  _isotropic(config, channels=(48, 64))
  config.autoencoder.steps = 800
  config.diffusion.steps = 1000
  config.adapt.steps = 15
  config.adapt.privacy.batch_size = 12
  # Noise that anyone can repeat: a demonstration, and the statement says so.
  config.adapt.privacy.seed = 0
  config.sample.num = 48
  config.sample.steps = 25
  config.counterfactual.steps = 25
  # Ventricles and hippocampi are few voxels: fewer steps never find them.
  config.evaluate.segmenter.steps = 400


def _small(config):
  _isotropic(config, channels=(48, 96))
  config.autoencoder.steps = 1500
  config.diffusion.steps = 3000
  config.adapt.steps = 40
  config.adapt.learning_rate = 1e-4
  config.adapt.privacy.batch_size = 48
  config.adapt.privacy.chunk_size = 16
  config.sample.num = 64
  config.sample.steps = 25
  config.sample.batch_size = 8
  config.counterfactual.steps = 25


def _full(config):
  config.autoencoder.model.patch = ()
  config.autoencoder.model.channels = (32, 64, 64)
  config.autoencoder.model.num_res_blocks = 2
  config.autoencoder.steps = 20000
  config.autoencoder.optimizer, config.autoencoder.learning_rate = 'adam', 1e-4
  _isotropic(config, channels=(128, 256))
  config.diffusion.model.num_res_blocks = 2
  config.diffusion.model.attention_levels = (False, True)
  config.diffusion.model.norm_groups = 32
  config.diffusion.steps = 100000
  config.diffusion.batch_size = 32
  config.diffusion.optimizer, config.diffusion.learning_rate = 'adam', 1e-4
  config.diffusion.ema_decay = 0.999
  config.adapt.steps = 2000
  config.adapt.privacy.batch_size = 256
  config.adapt.privacy.chunk_size = 32
  config.sample.num = 1000
