"""Short-axis cardiac stacks with the attributes of Daum 2024: phantom or real scans.

  launch/local.sh                                   # :tiny, minutes on 2 cores
  launch/local.sh configs/cardiac.py:small runs/cardiac-small
  ldm-jax --config=configs/cardiac.py:tiny,data=scd,root=SCD_FOLDER --workdir=W
  ldm-jax --config=configs/cardiac.py:small,data=acdc,root=ACDC_FOLDER --workdir=W

`data` is phantom, scd, acdc, mnms, mnms2 or ukbb; all but the first need `root`.
`also=phantom` adds phantom hearts to their public patients (docs/real-scans.md).
Every slice is 8-10 mm thick, so kernels and strides leave depth alone except in the
denoiser's lower level, which makes neighbouring slices agree.
"""

from ldm_jax.config import ablations, presets
from ldm_jax.config.autoencoder import use_recipe
from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import parse_arg

REAL = ('scd', 'acdc', 'mnms', 'mnms2', 'ukbb')
# Background, LV cavity, myocardium, RV: data/cohorts/label_values.py.
LABELS = (0, 1, 2, 3)
LABEL_NAMES = ('background', 'LV cavity', 'myocardium', 'RV cavity')
SIZES = {
  # (slices, rows, columns), mm
  'tiny': ((8, 32, 32), (12.0, 5.5, 5.5)),
  'small': ((10, 40, 40), (10.0, 4.4, 4.4)),
  'full': ((13, 96, 96), (10.0, 1.83, 1.83)),
}
PATIENTS = {
  'tiny': {'public': 96, 'private': 96, 'test': 24, 'public_test': 24},
  'small': {'public': 384, 'private': 384, 'test': 100, 'public_test': 100},
  'full': {'public': 4000, 'private': 10000, 'test': 1000},
}


def get_config(arg=''):
  """Config for `preset[,data=phantom|scd|...,root=...][,autoencoder=kl|vq|...]`."""
  args = parse_arg(
    arg, ('tiny', 'small', 'full'), data='phantom', root='', also='', autoencoder='kl'
  )
  config = defaults()
  config.name = f'cardiac-{args.data}-{args.preset}'
  {'tiny': _tiny, 'small': _small, 'full': _full}[args.preset](config)
  if args.data == 'phantom':
    _phantom(config, args.preset)
  elif args.data in REAL:
    _real(config, args)
    {'scd': _scd, 'ukbb': _ukbb}.get(args.data, _labelled)(config)
  else:
    raise ValueError(
      f'configs/cardiac.py has data=phantom and data={"|".join(REAL)}, not '
      f'data={args.data}. For any other folder of NIfTI files use configs/folder.py.'
    )
  use_recipe(config, args.autoencoder)
  if args.data == 'phantom' and args.preset == 'tiny':
    presets.fine_tune_biases(config)
  return config


def sweep():
  """Groups of overrides: `launch/sweep.py configs/cardiac.py:small W --group=NAME`.

  'pretraining', which the README shows: does public pre-training pay? The arm from
  scratch has the larger learning rate that an untrained network needs, the arm without
  privacy may take more steps: each at its best, the budget equal. 'recipe': what each
  choice of the public training's defaults gains (docs/recipe.md). 'noise': what each
  means against the noise of private training buys at epsilon 1, 3 and 10. 'utility': of
  what use samples are for training (docs/train-on-synthetic.md).
  """
  return {
    'pretraining': ablations.pretraining(),
    'recipe': ablations.recipe(),
    'utility': ablations.utility(attributes=('LVEDV',)),
    # Eight would take twice as long, and an arm has 2560 patients' gradients already.
    'noise': ablations.lower_noise(lora_learning_rate=1e-3, num_draws=4, num_bands=4),
  }


def _phantom(config, preset):
  shape, spacing_mm = SIZES[preset]
  num_patients = PATIENTS[preset]
  presets.use_phantom(
    config, 'phantom_cardiac', num_patients, shape=shape, spacing_mm=spacing_mm
  )
  config.data.preprocess.shape = shape
  # Above 2 samples become alike and follow the requests less (docs/recipe.md).
  config.sample.guidance = 1.5
  config.sample.sweep = ('LVEDV', 'MYOEDTHICK', 'ANGLE')
  config.evaluate.labels, config.evaluate.label_names = LABELS, LABEL_NAMES
  # With a latent that knows the anatomy, sizes follow the requests (docs/recipe.md).
  config.data.labels = 'joint'
  config.evaluate.measures = (
    _measure('LV_volume', 'volume', (1,), ('LVESV', 'LVEDV')),
    _measure('RV_volume', 'volume', (3,), ('RVESV', 'RVEDV')),
    _measure('wall_thickness', 'thickness', (1, 2), ('MYOESTHICK', 'MYOEDTHICK')),
  )
  _within_patient(config)
  _larger_heart(config)


def _within_patient(config):
  """What two phases of a heart have in common, and what only both tell."""
  config.evaluate.within_patient.same = (
    # g, at 1.05 g/ml
    {'name': 'myocardial_mass', 'kind': 'volume', 'classes': (2,), 'scale': 1.05},
  )
  config.evaluate.within_patient.ejection = tuple(
    {'name': name, 'classes': (index,), 'by': 'ESED'}
    for name, index in (('LVEF', 1), ('RVEF', 3))
  )


def _measure(name, kind, classes, attributes):
  return {
    'name': name,
    'kind': kind,
    'classes': classes,
    'attributes': attributes,
    'by': 'ESED',
  }


def _larger_heart(config):
  with config.counterfactual.set.unlocked():
    config.counterfactual.set.LVEDV = '+60'
    config.counterfactual.set.LVESV = '+60'


def _real(config, args):
  """What all sets of scans share: the grid, and networks for few patients."""
  if not args.root:
    raise ValueError(
      f'data={args.data} needs the folder of the data set: '
      f'--config=configs/cardiac.py:{args.preset},data={args.data},root=FOLDER.'
    )
  for name in ('public', 'private', 'test'):
    section = config.data[name]
    section.layout, section.root = args.data, args.root
  in_plane = {'tiny': 4.0, 'small': 2.66, 'full': 1.33}[args.preset]
  side = {'tiny': 32, 'small': 48, 'full': 96}[args.preset]
  # 128 mm around the labelled cavity hold the heart; 14 slices are kept as they are.
  config.data.preprocess.shape = (14, side, side)
  config.data.preprocess.centre = 'label'
  config.data.preprocess.spacing_mm = (None, in_plane, in_plane)
  # Bright fat in a corner must not leave the heart dark.
  config.data.preprocess.percentiles = (1, 95)
  config.data.preprocess.foreground = False
  if args.also:
    _also(config, args)
  if args.preset != 'full':
    _few_patients(config)
  config.sample.num = 24
  # Volumes, wall and age that belong together, of nobody: the phantom's constants.
  config.sample.requests = 'population'
  # By eye, the rings of muscle are clearer than with 1.
  config.sample.guidance = 2.0


def _also(config, args):
  """Phantom hearts beside the public scans, on their grid."""
  if args.also != 'phantom':
    raise ValueError(
      f'also={args.also} is not known; expected also=phantom. For further public '
      'folders see data.public.also in docs/data.md.'
    )
  prepared = config.data.preprocess
  options = {
    'name': 'phantom',
    'site': 'public',
    'seed': 1,
    'num_patients': PATIENTS[args.preset]['public'],
    'shape': tuple(prepared.shape),
    'spacing_mm': (8.0, *prepared.spacing_mm[1:]),
  }
  config.data.public.also = ({'layout': 'phantom_cardiac', 'options': options},)


def _scd(config):
  config.evaluate.labels = (0, 1)
  config.evaluate.label_names = LABEL_NAMES[:2]
  config.evaluate.measures = (
    _measure('LV_volume', 'volume', (1,), ('LVESV', 'LVEDV')),
  )
  config.evaluate.within_patient.ejection = (
    {'name': 'LVEF', 'classes': (1,), 'by': 'ESED'},
  )
  config.sample.sweep = ('LVEDV', 'DEPTH')
  # Thirteen patients: noise this strong needs few, small steps.
  config.adapt.privacy.batch_size = 4
  config.adapt.privacy.chunk_size = 4
  config.adapt.steps = 20
  config.adapt.learning_rate = 1e-5
  _larger_heart(config)


def _labelled(config):
  """ACDC, M&Ms, M&Ms-2: their training patients in two halves, their test patients."""
  config.data.split.public = config.data.split.private = 0.5
  config.data.split.test = 0.0
  for name in ('public', 'private'):
    config.data[name].part = f'published:train/{name}'
  config.data.test.part = 'published:test'
  # Their stacks have up to 18 slices.
  config.data.preprocess.shape = (18, *config.data.preprocess.shape[1:])
  config.evaluate.labels, config.evaluate.label_names = LABELS, LABEL_NAMES
  config.evaluate.measures = (
    _measure('LV_volume', 'volume', (1,), ('LVESV', 'LVEDV')),
    _measure('RV_volume', 'volume', (3,), ('RVESV', 'RVEDV')),
  )
  _within_patient(config)
  config.sample.sweep = ('LVEDV', 'RVEDV')
  # 50 to 80 private patients: as with Sunnybrook, few and small steps.
  config.adapt.privacy.batch_size = 8
  config.adapt.privacy.chunk_size = 8
  config.adapt.steps = 20
  config.adapt.learning_rate = 1e-5
  _larger_heart(config)


def _ukbb(config):
  """UK Biobank: no labels, thousands of patients."""
  config.data.preprocess.centre = 'mass'
  config.sample.sweep = ('AGE',)
  with config.counterfactual.set.unlocked():
    config.counterfactual.set.AGE = '+10'


def _few_patients(config):
  """Networks and augmentation for a dozen patients."""
  config.autoencoder.steps = 800
  config.diffusion.steps = max(config.diffusion.steps, 1500)
  # Without augmentation the networks memorise thirteen patients.
  config.augment.copies = 8
  config.augment.shift = (0, 1, 1)
  config.augment.rotation_deg = (10, 0, 0)
  config.augment.gamma = 0.2


def _tiny(config):
  config.autoencoder.steps = 1000
  config.diffusion.steps = 1200
  config.adapt.steps = 15
  config.adapt.privacy.batch_size = 24
  # Noise that anyone can repeat: a demonstration, and the statement says so.
  config.adapt.privacy.seed = 0
  config.sample.num = 48
  config.sample.steps = 25
  config.counterfactual.steps = 25
  config.counterfactual.null_cycles = 3


def _small(config):
  config.autoencoder.steps = 1200
  config.diffusion.steps = 2000
  # Few steps of many patients, small steps: noise moves the weights less than the
  # pre-training's own errors do.
  config.adapt.steps = 40
  config.adapt.learning_rate = 1e-4
  config.adapt.privacy.batch_size = 64
  config.adapt.privacy.chunk_size = 32
  config.sample.num = 128
  config.sample.steps = 25
  config.sample.batch_size = 32
  config.counterfactual.steps = 25
  config.evaluate.segmenter.steps = 300


def _full(config):
  config.autoencoder.model.patch = ()
  config.autoencoder.model.channels = (64, 128, 128)
  config.autoencoder.model.kernels = ((1, 3, 3),) * 3
  config.autoencoder.model.strides = ((1, 2, 2),) * 2
  config.autoencoder.model.latent_channels = 8
  config.autoencoder.model.num_res_blocks = 2
  config.autoencoder.model.norm_groups = 16
  config.autoencoder.steps = 20000
  config.autoencoder.batch_size = 32
  config.autoencoder.optimizer, config.autoencoder.learning_rate = 'adam', 1e-4
  config.diffusion.model.channels = (128, 256, 384)
  config.diffusion.model.num_res_blocks = 2
  config.diffusion.model.kernels = ((1, 3, 3), (3, 3, 3), (3, 3, 3))
  config.diffusion.model.strides = ((1, 2, 2),) * 2
  config.diffusion.model.attention_levels = (False, True, True)
  config.diffusion.model.norm_groups = 32
  config.diffusion.steps = 100000
  config.diffusion.batch_size = 64
  config.diffusion.optimizer, config.diffusion.learning_rate = 'adam', 1e-4
  config.diffusion.ema_decay = 0.999
  config.adapt.steps = 2000
  config.adapt.privacy.batch_size = 512
  config.adapt.privacy.chunk_size = 64
  config.sample.num = 2000
