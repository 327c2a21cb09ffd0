"""The networks and settings of Daum et al. 2024 (arXiv 2407.16405), to the number.

  ldm-jax --config=configs/daum24.py:tiny --workdir=W        # its shape, minutes
  ldm-jax --config=configs/daum24.py --workdir=W             # the paper's, on a GPU
  ldm-jax --config=configs/daum24.py:full,data=scd,root=SCD_FOLDER --workdir=W

Volumes (13,96,96), latents (1,13,24,24), 14 attributes; an autoencoder of 1.14 M
parameters, a UNet of 27.8 M (published: 27.9 M), an attribute encoder of 8.7 k. What
the publication leaves open was chosen to meet these counts: see
`ldm_jax/models/denoisers/daum24.py` and the comments below.

Not as published: patients are the unit of privacy instead of volumes; attributes are
scaled by fixed clinical ranges, missing ones have a learned token; no dropout, because
one draw for a whole batch would tie patients together; learning rates warm up and decay
in pre-training.
"""

from ldm_jax.config import presets
from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import parse_arg

SHAPE, SPACING_MM = (13, 96, 96), (10.0, 1.83, 1.83)
PATIENTS = {
  'tiny': {'public': 48, 'private': 48, 'test': 12},
  'small': {'public': 384, 'private': 384, 'test': 100},
  # Ten thousand volumes of ED and ES each train the paper's private model.
  'full': {'public': 4000, 'private': 10000, 'test': 1000},
}
EPOCHS = 150


def get_config(arg=''):
  """Config for `preset[,data=phantom|scd][,root=FOLDER]`.

  `full` is the paper's, `small` its networks with less data and fewer steps, `tiny`
  small networks of the same shape.
  """
  presets = ('tiny', 'small', 'full')
  args = parse_arg(arg, presets, data='phantom', root='')
  config = defaults()
  config.name = f'daum24-{args.data}-{args.preset}'
  config.data.preprocess.shape = SHAPE
  _autoencoder(config.autoencoder)
  _diffusion(config.diffusion)
  _adapt(config.adapt, PATIENTS['full']['private'])
  config.sample.solver, config.sample.steps = 'ddpm', 150
  config.sample.spacing = 'linspace'
  config.sample.residual_noise = False
  config.sample.num = 2000
  config.counterfactual.steps = 150
  config.evaluate.labels = (0, 1, 2, 3)
  config.evaluate.measures = (
    _measure('LV_volume', 'volume', (1,), ('LVESV', 'LVEDV')),
    _measure('RV_volume', 'volume', (3,), ('RVESV', 'RVEDV')),
    _measure('wall_thickness', 'thickness', (1, 2), ('MYOESTHICK', 'MYOEDTHICK')),
  )
  config.sample.sweep = ('LVEDV', 'MYOEDTHICK')
  with config.counterfactual.set.unlocked():
    config.counterfactual.set.LVEDV = '+60'
    config.counterfactual.set.LVESV = '+60'
  shrink = {'tiny': _tiny, 'small': _small}.get(args.preset)
  if shrink:
    shrink(config)
  if args.data == 'phantom':
    _phantom(config, args.preset)
  elif args.data == 'scd':
    _scd(config, args)
  else:
    raise ValueError(
      f'configs/daum24.py has data=phantom and data=scd, not data={args.data}. For any '
      'other folder of NIfTI files use configs/folder.py.'
    )
  return config


def sweep():
  """The paper's comparison: budgets, with and without public pre-training."""
  return [
    {'adapt.privacy.epsilon': epsilon, 'adapt.init': init}
    for epsilon in (10.0, 1.0, 0.1)
    for init in ('diffusion', 'scratch')
  ]


def _autoencoder(section):
  """1 -> 64; strided to 64, two blocks; strided to 128, two blocks; 4; latent of 1."""
  model = section.model
  model.channels, model.num_res_blocks = (64, 64, 128), 2
  model.num_finest_blocks = 0
  model.kernels, model.strides = ((1, 3, 3),) * 3, ((1, 2, 2),) * 2
  model.patch, model.upsampling = (), 'nearest'
  model.latent_channels, model.head_channels = 1, 4
  model.norm_groups = 16
  # Blocks of a 3x3 and a 1x1 convolution, 4x4 strided convolutions on the way down and
  # 3x3 ones on the way up: 1.142 M, the count of two full 3x3 would be 1.7 M.
  model.pointwise_blocks, model.resample_to_next = True, True
  model.down_kernel = (1, 4, 4)
  section.optimizer, section.learning_rate, section.batch_size = 'adam', 1e-4, 32
  section.l1_weight, section.mse_weight = 0.0, 1000.0
  section.kl_weight, section.kl_warmup = 0.1, 100000
  section.ema_decay = 0.0
  section.steps = EPOCHS * 2 * PATIENTS['full']['public'] // 32 // 3  # 50 epochs


def _diffusion(section):
  section.schedule.name, section.schedule.num_timesteps = 'linear', 150
  section.schedule.beta_start, section.schedule.beta_end = 1e-4, 7e-2
  section.schedule.zero_terminal_snr = False
  section.prediction = 'epsilon'
  model = section.model
  model.kind = 'daum24'
  model.channels, model.num_res_blocks = (128, 256, 384), 2
  model.kernels, model.strides = ((1, 3, 3),) * 3, ((1, 2, 2),) * 2
  model.attention_levels = (False, True, True)
  model.num_heads, model.num_head_channels = 8, 16
  model.norm_groups = 32
  conditioner = section.conditioner
  conditioner.width, conditioner.num_heads, conditioner.head_dim = 16, 8, 16
  conditioner.num_frequencies, conditioner.shared_absent = 0, True
  conditioner.by = ('attention',)
  section.optimizer, section.learning_rate = 'adam', 2e-5
  section.batch_size, section.ema_decay = 64, 0.0
  section.steps = EPOCHS * 2 * PATIENTS['full']['public'] // 64


def _adapt(section, num_patients):
  privacy = section.privacy
  privacy.epsilon, privacy.delta, privacy.clip_norm = 10.0, 1e-5, 1.0
  privacy.batch_size, privacy.chunk_size, privacy.microbatch = 256, 64, 1
  section.learning_rate, section.ema_decay = 1e-5, (0.0,)
  section.steps = EPOCHS * num_patients // 256


def _measure(name, kind, classes, attributes):
  return {
    'name': name,
    'kind': kind,
    'classes': classes,
    'attributes': attributes,
    'by': 'ESED',
  }


def _phantom(config, preset):
  shape = config.data.preprocess.shape
  scale = SHAPE[1] / shape[1]
  presets.use_phantom(
    config,
    'phantom_cardiac',
    PATIENTS[preset],
    shape=shape,
    spacing_mm=(SPACING_MM[0], *(mm * scale for mm in SPACING_MM[1:])),
  )


def _scd(config, args):
  if not args.root:
    raise ValueError(
      'data=scd needs the folder of the Sunnybrook data: '
      f'--config=configs/daum24.py:{args.preset},data=scd,root=FOLDER.'
    )
  for name in ('public', 'private', 'test'):
    section = config.data[name]
    section.layout, section.root = 'scd', args.root
  shape = config.data.preprocess.shape
  in_plane = SPACING_MM[1] * SHAPE[1] / shape[1]
  config.data.preprocess.centre = 'label'
  config.data.preprocess.spacing_mm = (None, in_plane, in_plane)
  # Thirteen patients, one of their labels.
  config.adapt.privacy.batch_size = config.adapt.privacy.chunk_size = 8
  config.sample.num = 24
  config.sample.requests = 'population'
  config.sample.sweep = ('LVEDV', 'DEPTH')
  config.evaluate.labels = (0, 1)
  config.evaluate.measures = config.evaluate.measures[:1]


def _small(config):
  config.data.preprocess.shape = SHAPE
  config.autoencoder.steps, config.autoencoder.kl_warmup = 2000, 1000
  config.diffusion.steps = 5000
  config.adapt.steps = 50
  config.adapt.privacy.batch_size = 64
  config.sample.num = 128


def _tiny(config):
  config.data.preprocess.shape = (13, 32, 32)
  config.autoencoder.model.channels = (16, 16, 32)
  config.autoencoder.model.norm_groups = 8
  config.autoencoder.steps, config.autoencoder.kl_warmup = 300, 100
  config.autoencoder.batch_size, config.autoencoder.learning_rate = 8, 3e-3
  # One latent channel at this size: the paper's weight would leave nothing in it.
  config.autoencoder.kl_weight = 1e-2
  config.diffusion.model.channels = (16, 32, 48)
  config.diffusion.model.num_res_blocks = 1
  config.diffusion.model.num_heads = 2
  config.diffusion.model.norm_groups = 8
  config.diffusion.steps, config.diffusion.batch_size = 300, 16
  config.diffusion.learning_rate = 1e-3
  config.adapt.steps = 10
  config.adapt.learning_rate = 2e-4
  config.adapt.privacy.batch_size = config.adapt.privacy.chunk_size = 16
  # Noise that anyone can repeat: a demonstration, and the statement says so.
  config.adapt.privacy.seed = 0
  config.sample.num, config.sample.steps = 24, 50
  config.counterfactual.steps = 50
