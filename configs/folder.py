"""Any folder of NIfTI files plus one table: named columns become attributes.

  ldm-jax --config=configs/folder.py:tiny,root=SCANS,attributes=age:20:90;sex:F|M \\
    --workdir=W

SCANS holds the scans and participants.tsv (or .csv), with a subject column and either
an image column or a file-name pattern. Each attribute is `column:low:high` (a
public range, never one measured on private patients) or `column:first|second|...`.
Inspect first with --stages=doctor. `shape` and `spacing` are (slices x rows x columns).
"""

from ldm_jax.config import parse_arg
from ldm_jax.defaults import defaults
from ldm_jax.defaults_autoencoder import use_recipe


def get_config(arg=''):
  """Config for `preset,root=FOLDER,attributes=...` and the options below."""
  args = parse_arg(
    arg,
    ('tiny', 'small', 'full'),
    root='',
    table='',
    subject='',
    image='',
    label='',
    labels='0|1',
    attributes='',
    shape='32x32x32',
    spacing='4x4x4',
    autoencoder='kl',
  )
  if not args.root or not args.attributes:
    raise ValueError(
      'configs/folder.py needs the folder of scans and the attribute columns: '
      '--config=configs/folder.py:tiny,root=FOLDER,attributes=age:20:90;sex:F|M '
      f'(got root={args.root!r}, attributes={args.attributes!r}).'
    )
  config = defaults()
  config.name = f'folder-{args.preset}'
  config.data.schema = tuple(map(_attribute, args.attributes.split(';')))
  for name in ('public', 'private', 'test'):
    section = config.data[name]
    section.layout, section.root = 'folder', args.root
    with section.options.unlocked():
      for option in ('table', 'subject', 'image', 'label'):
        if getattr(args, option):
          section.options[option] = getattr(args, option)
  # Of the grid that --stages=doctor proposes.
  config.doctor.max_voxels = {'tiny': 2**15, 'small': 2**17, 'full': 2**18}[args.preset]
  config.data.preprocess.shape = _numbers(args.shape, 'shape', int)
  config.data.preprocess.spacing_mm = _numbers(args.spacing, 'spacing', float)
  config.evaluate.labels = tuple(int(value) for value in args.labels.split('|'))
  _isotropic(config)
  if args.preset == 'tiny':
    config.diffusion.steps = 400
    config.sample.num = 16
  elif args.preset == 'small':
    config.autoencoder.steps = 1000
    config.diffusion.steps = 3000
    config.sample.num = 64
  else:
    config.autoencoder.model.channels = (32, 64)
    config.autoencoder.steps = 10000
    config.diffusion.model.channels = (64, 128)
    config.diffusion.steps = 50000
    config.sample.num = 500
  use_recipe(config, args.autoencoder)
  return config


def _isotropic(config):
  config.autoencoder.model.kernels = ((3, 3, 3),) * 2
  config.autoencoder.model.strides = ((2, 2, 2),)
  config.diffusion.model.channels = (32, 64)
  config.diffusion.model.kernels = ((3, 3, 3),) * 2
  config.diffusion.model.strides = ((2, 2, 2),)
  config.diffusion.model.attention_levels = (False, False)
  config.evaluate.segmenter.kernels = ((3, 3, 3),) * 3
  config.evaluate.segmenter.strides = ((2, 2, 2),) * 2


def _attribute(text):
  name, _, rest = text.partition(':')
  if '|' in rest:
    return {
      'name': name,
      'kind': 'categorical',
      'categories': tuple(rest.split('|')),
    }
  try:
    low, high = map(float, rest.split(':'))
  except ValueError:
    raise ValueError(
      f'The attribute {text!r} must read column:low:high (numbers) or '
      'column:first|second (categories).'
    ) from None
  return {'name': name, 'kind': 'continuous', 'low': low, 'high': high}


def _numbers(text, name, kind):
  try:
    numbers = tuple(None if word == '-' else kind(word) for word in text.split('x'))
  except ValueError:
    numbers = ()
  if len(numbers) != 3:
    raise ValueError(
      f'{name}={text!r} must be three numbers like 32x48x48 (slices x rows x columns; '
      'in spacing, - keeps that axis as the file has it).'
    )
  return numbers
