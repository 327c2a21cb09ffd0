"""Short-axis cardiac stacks with the attributes of Daum 2024: phantom or real scans.

  launch/local.sh                                   # :tiny, minutes on 2 cores
  launch/local.sh configs/cardiac.py:small runs/cardiac-small
  ldm-jax --config=configs/cardiac.py:tiny,data=scd,root=SCD_FOLDER --workdir=W

Every slice is 8-10 mm thick, so kernels and strides leave depth alone except in the
denoiser's lower level, which makes neighbouring slices agree.
"""

from ldm_jax.config import parse_arg, product
from ldm_jax.defaults import defaults

PHANTOM_LABELS = (0, 1, 2, 3)  # background, LV cavity, myocardium, RV
SIZES = {
  # (slices, rows, columns), mm in plane
  'tiny': ((12, 32, 32), 5.5),
  'small': ((12, 48, 48), 3.66),
  'full': ((13, 96, 96), 1.83),
}
PATIENTS = {
  'tiny': {'public': 96, 'private': 96, 'test': 32},
  'small': {'public': 384, 'private': 512, 'test': 128},
  'full': {'public': 4000, 'private': 10000, 'test': 1000},
}


def get_config(arg=''):
  """Config for `preset[,data=phantom|scd][,root=FOLDER]`."""
  args = parse_arg(arg, ('tiny', 'small', 'full'), data='phantom', root='')
  config = defaults()
  config.name = f'cardiac-{args.data}-{args.preset}'
  {'tiny': _tiny, 'small': _small, 'full': _full}[args.preset](config)
  if args.data == 'phantom':
    _phantom(config, args.preset)
  elif args.data == 'scd':
    _scd(config, args)
  else:
    raise ValueError(
      f'configs/cardiac.py has data=phantom and data=scd, not data={args.data}. '
      'For any other folder of NIfTI files use configs/folder.py.'
    )
  return config


def sweep():
  """Overrides whose comparison the README shows: does public pre-training pay?"""
  return [
    {'adapt.init': 'diffusion'},
    {'adapt.init': 'scratch'},
    {'adapt.init': 'diffusion', 'adapt.privacy': None},
    *product(**{'adapt.method': ['attention'], 'adapt.privacy.epsilon': [10.0]}),
  ]


def _phantom(config, preset):
  shape, mm = SIZES[preset]
  for name, site, seed in (
    ('public', 'public', 1),
    ('private', 'private', 2),
    ('test', 'private', 3),
  ):
    section = config.data[name]
    section.layout = 'phantom_cardiac'
    section.part = ''
    with section.options.unlocked():
      section.options.update(
        site=site,
        seed=seed,
        name=name,
        num_patients=PATIENTS[preset][name],
        shape=shape,
        spacing_mm=(10.0, mm, mm),
      )
  config.data.preprocess.shape = shape
  config.sample.requests = 'population'
  config.sample.sweep = ('LVEDV', 'MYOEDTHICK', 'ANGLE')
  config.evaluate.labels = PHANTOM_LABELS
  config.evaluate.measures = (
    {
      'name': 'LV_volume',
      'kind': 'volume',
      'classes': (1,),
      'attributes': ('LVESV', 'LVEDV'),
      'by': 'ESED',
    },
    {
      'name': 'RV_volume',
      'kind': 'volume',
      'classes': (3,),
      'attributes': ('RVESV', 'RVEDV'),
      'by': 'ESED',
    },
    {
      'name': 'wall_thickness',
      'kind': 'thickness',
      'classes': (1, 2),
      'attributes': ('MYOESTHICK', 'MYOEDTHICK'),
      'by': 'ESED',
    },
  )
  with config.counterfactual.set.unlocked():
    config.counterfactual.set.LVEDV = '+60'
    config.counterfactual.set.LVESV = '+60'


def _scd(config, args):
  if not args.root:
    raise ValueError(
      'data=scd needs the folder of the Sunnybrook data: '
      f'--config=configs/cardiac.py:{args.preset},data=scd,root=FOLDER.'
    )
  for name in ('public', 'private', 'test'):
    section = config.data[name]
    section.layout, section.root = 'scd', args.root
  in_plane = {'tiny': 4.0, 'small': 2.66, 'full': 1.33}[args.preset]
  side = {'tiny': 32, 'small': 48, 'full': 96}[args.preset]
  # 128 mm around the labelled cavity hold the heart; 14 slices are kept as they are.
  config.data.preprocess.shape = (14, side, side)
  config.data.preprocess.centre = 'label'
  config.data.preprocess.spacing_mm = (None, in_plane, in_plane)
  config.evaluate.labels = (0, 1)
  config.evaluate.measures = (
    {
      'name': 'LV_volume',
      'kind': 'volume',
      'classes': (1,),
      'attributes': ('LVESV', 'LVEDV'),
      'by': 'ESED',
    },
  )
  config.sample.sweep = ('LVEDV', 'DEPTH')
  # Thirteen patients: noise this strong needs few, small steps.
  config.adapt.privacy.batch_size = 8
  config.adapt.privacy.chunk_size = 8
  config.adapt.steps = 20
  config.adapt.learning_rate = 1e-5
  with config.counterfactual.set.unlocked():
    config.counterfactual.set.LVEDV = '+60'
    config.counterfactual.set.LVESV = '+60'


def _tiny(config):
  _quarter_in_plane(config, channels=(16, 32, 32))
  config.autoencoder.steps = 300
  config.autoencoder.batch_size = 16
  config.diffusion.steps = 500
  config.diffusion.batch_size = 16
  config.adapt.steps = 20
  # Thirty-two of 96 patients a step, noise that anyone can repeat: a demonstration.
  config.adapt.privacy.seed = 0
  config.sample.num = 48
  config.sample.steps = 25
  config.counterfactual.steps = 25
  config.evaluate.segmenter.steps = 250


def _small(config):
  _quarter_in_plane(config, channels=(16, 32, 32))
  config.autoencoder.steps = 600
  config.autoencoder.batch_size = 16
  config.diffusion.model.channels = (32, 64, 64)
  config.diffusion.model.kernels = ((1, 3, 3), (1, 3, 3), (3, 3, 3))
  config.diffusion.model.strides = ((1, 2, 2),) * 2
  config.diffusion.model.attention_levels = (False, False, True)
  config.diffusion.steps = 1500
  config.diffusion.batch_size = 32
  config.adapt.steps = 60
  config.adapt.privacy.batch_size = 128
  config.adapt.privacy.chunk_size = 32
  config.sample.num = 256
  config.sample.batch_size = 32
  config.evaluate.segmenter.steps = 400


def _quarter_in_plane(config, channels):
  config.autoencoder.model.channels = channels
  config.autoencoder.model.kernels = ((1, 3, 3),) * 3
  config.autoencoder.model.strides = ((1, 2, 2),) * 2


def _full(config):
  _quarter_in_plane(config, channels=(64, 128, 128))
  config.autoencoder.model.num_res_blocks = 2
  config.autoencoder.model.norm_groups = 16
  config.autoencoder.steps = 20000
  config.autoencoder.batch_size = 32
  config.autoencoder.learning_rate = 1e-4
  config.diffusion.model.channels = (128, 256, 384)
  config.diffusion.model.num_res_blocks = 2
  config.diffusion.model.kernels = ((1, 3, 3), (3, 3, 3), (3, 3, 3))
  config.diffusion.model.strides = ((1, 2, 2),) * 2
  config.diffusion.model.attention_levels = (False, True, True)
  config.diffusion.model.norm_groups = 32
  config.diffusion.steps = 100000
  config.diffusion.batch_size = 64
  config.diffusion.learning_rate = 1e-4
  config.diffusion.ema_decay = 0.999
  config.adapt.steps = 2000
  config.adapt.privacy.batch_size = 512
  config.adapt.privacy.chunk_size = 64
  config.sample.num = 2000
