"""Any folder of NIfTI files plus one table: named columns become attributes.

  ldm-jax --config=configs/folder.py:tiny,root=SCANS,public=OPEN,attributes=age:20:90 \\
    --workdir=W

SCANS holds the scans and participants.tsv (or .csv), with a subject column and either
an image column or a file-name pattern. Each attribute is `column:low:high` (a
public range, never one measured on private patients) or `column:first|second|...`;
several are separated by `;`. Inspect first with --stages=doctor. `shape` and `spacing`
are (slices x rows x columns). `frame` takes one frame of 4D files, `visit` names the
column of visits, `stack=True` keeps the through-plane axis first.

Patients of SCANS are private. Who is public must be said, because public patients train
the autoencoder and the denoiser without protection:

  public=FOLDER   scans of other patients, with a table of the same columns
  cohort=COLUMN   that column of the table says public, private or test of each patient;
                  a column called `cohort` need not be named
  public=none     nobody: pre-training sees a phantom alone (phantom=brain, cardiac or
                  chest). --config.adapt.init=scratch learns the denoiser by private
                  training alone; --config.autoencoder.init=... brings weights in
  split=demo      demonstration: 40 % of SCANS, drawn by lot, are public, and a red
                  banner on every page says so

With public=FOLDER and public=none a fifth of SCANS is held out as the test cohort,
which trains nothing. The part of a patient follows from a hash of the own id and
split_seed (0) alone, so shares are met roughly; a part of few may come out empty, and
then another split_seed is needed. Batches, steps and rate follow from the numbers of
patients, which count as public; what was chosen is printed, and any --config flag
overrides it.
"""

import math
import pathlib

from ldm_jax.config import presets
from ldm_jax.config.autoencoder import use_recipe
from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import parse_arg
from ldm_jax.data import cohorts_of_config
from ldm_jax.data.layouts import folder
from ldm_jax.data.phantom.brain import cohort as brain
from ldm_jax.data.phantom.brain import head
from ldm_jax.data.phantom.cardiac import cohort as cardiac
from ldm_jax.data.phantom.chest import cohort as chest
from ldm_jax.data.tables import table as tables

OPTIONS = ('table', 'subject', 'image', 'label', 'visit')
COLUMN = 'cohort'  # of the table, taken without being named
PHANTOMS = {'brain': brain.LABELS, 'cardiac': cardiac.LABELS, 'chest': chest.LABELS}
PHANTOM_PATIENTS = {'tiny': 64, 'small': 256, 'full': 2000}
# A phantom that is rendered finer takes seconds a volume.
FINEST_MM = 2.0
LONGEST = 250  # characters of an argument that is repeated in a message


def get_config(arg=''):
  """Config for `preset,root=FOLDER,attributes=...` and the options above."""
  args = parse_arg(
    arg,
    ('tiny', 'small', 'full'),
    root='',
    public='',
    cohort='',
    split='',
    split_seed=0,
    phantom='',
    **dict.fromkeys(OPTIONS, ''),
    frame=-1,
    stack=False,
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
  config.data.split_seed = args.split_seed
  config.data.schema = tuple(map(_attribute, args.attributes.split(';')))
  # Of the grid that --stages=doctor proposes.
  config.doctor.max_voxels = {'tiny': 2**15, 'small': 2**17, 'full': 2**18}[args.preset]
  config.data.preprocess.shape = _numbers(args.shape, 'shape', int)
  config.data.preprocess.spacing_mm = _numbers(args.spacing, 'spacing', float)
  config.evaluate.labels = tuple(int(value) for value in args.labels.split('|'))
  _cohorts(config, args, arg)
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
  numbers = {
    name: len(cohort) for name, cohort in cohorts_of_config.cohorts(config.data).items()
  }
  chosen = presets.use_numbers(
    config, args.preset, numbers['public'], numbers['private']
  )
  presets.say_once(
    'folder.py: '
    + ', '.join(f'{number} {name}' for name, number in numbers.items())
    + ' patients'
    + (f' (public: the {_phantom(args)} phantom)' if args.public == 'none' else '')
    + '; chosen for them: '
    + ', '.join(f'{key}={value:g}' for key, value in chosen.items())
  )
  return config


def _cohorts(config, args, arg):
  """Whose scans are public, private and held out, as the arguments say."""
  column = _cohort_column(args)
  said = [args.public, column, args.split]
  if args.split not in ('', 'demo'):
    raise ValueError(
      f'split={args.split} is not known; the one split by lot is split=demo, for '
      'demonstrations.'
    )
  if args.phantom and args.public != 'none':
    raise ValueError(
      f'phantom={args.phantom} goes with public=none; got public={args.public!r}.'
    )
  if not any(said):
    raise ValueError(_nothing_said(arg))
  if sum(map(bool, said)) > 1:
    raise ValueError(
      f'public={args.public!r}, cohort={column!r} and split={args.split!r} each say '
      'which patients are public; give only one of them.'
    )
  parts = {'public': 'public', 'private': 'private', 'test': 'test'}
  if column:
    parts = _parts_by_column(args, column)
  elif not args.split:
    del parts['public']
    split = config.data.split
    split.public, split.private, split.test = 0.0, 0.8, 0.2
  for name, part in parts.items():
    _use_folder(config.data[name], args, args.root, part, column)
  if args.public == 'none':
    _use_phantom(config, args)
  elif args.public:
    _refuse_the_same(args)
    _use_folder(config.data.public, args, args.public, '', '')


def _use_folder(section, args, root, part, column):
  section.layout, section.root, section.part = 'folder', root, part
  with section.options.unlocked():
    for option in OPTIONS:
      if getattr(args, option):
        section.options[option] = getattr(args, option)
    if args.frame >= 0:
      section.options.frame = args.frame
    if args.stack:
      section.options.stack = True
    if column:
      section.options.cohort = column


def _refuse_the_same(args):
  one, other = (
    pathlib.Path(place).expanduser().resolve() for place in (args.public, args.root)
  )
  if one == other:
    raise ValueError(
      f'public={args.public} is the folder of the private patients. Name a folder of '
      'other patients, mark them in the table (cohort=COLUMN), or say split=demo for a '
      'demonstration.'
    )


def _cohort_column(args):
  """The column that says whose scans are public; '' where there is none.

  A column called `cohort` of which no word is ours (the name of a study, say) is none.
  """
  if args.cohort or args.public or args.split:
    return args.cohort
  words = {row.get(COLUMN, '').lower() for row in _table(args).rows}
  return COLUMN if words & set(folder.COHORTS) else ''


def _table(args):
  return tables.read(tables.find(tables.require_folder(args.root), args.table))


def _parts_by_column(args, column):
  """Section -> 'published:<cohort>' of each cohort that the column names."""
  table = _table(args)
  subject = folder.subject_column(table, args.subject)
  words = set(folder.cohorts_of(table, subject, column).values())
  missing = [name for name in ('public', 'private') if name not in words]
  if missing:
    raise ValueError(
      f'The column {column!r} of {table.path} calls no patient {missing[0]}; required '
      'are public and private patients. Correct it, or remove the column and say '
      'public=FOLDER, public=none or split=demo.'
    )
  return {
    name: f'{cohorts_of_config.PUBLISHED}{name}'
    for name in folder.COHORTS
    if name in words
  }


def _nothing_said(arg):
  start = 'configs/folder.py:' + (arg if len(arg) <= LONGEST else f'{arg[:LONGEST]}...')
  return (
    'Nothing says which patients are public, and public patients train the autoencoder '
    'and the denoiser without protection. Say one of: '
    f'(1) --config="{start},public=FOLDER" where FOLDER holds scans of other patients '
    'that may be used freely, with a table of the same columns; '
    f'(2) --config="{start},cohort=COLUMN" where that column of the table says public, '
    f'private or test of each patient; (3) --config="{start},public=none" where nobody '
    'is public: a phantom serves (phantom=brain, cardiac or chest), and beside it '
    'converted weights (--config.autoencoder.init=FOLDER), or training from scratch '
    f'under privacy (--config.adapt.init=scratch); (4) --config="{start},split=demo" '
    'for a demonstration: 40 % of these patients, drawn by lot, get no protection, '
    'every page says so in red, and nothing of the run may be shared.'
  )


def _phantom(args):
  """Name of the phantom: the one given, else one that fits the grid."""
  return args.phantom or ('chest' if args.shape.startswith('1x') else 'brain')


def _use_phantom(config, args):
  """A phantom as the public cohort; attributes it does not have are missing in it."""
  name = _phantom(args)
  if name not in PHANTOMS:
    raise ValueError(
      f'phantom={name} is not known; choose one of {", ".join(PHANTOMS)}.'
    )
  section = config.data.public
  section.layout, section.part = f'phantom_{name}', ''
  with section.options.unlocked():
    section.options.update(
      name='phantom',
      seed=1,
      num_patients=PHANTOM_PATIENTS[args.preset],
      unknown='missing',
    )
    if name == 'brain':
      shape, spacing_mm = _whole_head(config.data.preprocess)
      section.options.update(shape=shape, spacing_mm=spacing_mm)
  config.evaluate.labels = tuple(range(len(PHANTOMS[name])))
  # Edited phantoms tell nothing about the cohort; a source can still be named.
  config.counterfactual.num = 0


def _whole_head(preprocess):
  """A grid as fine as the scans', large enough for a head; prepare crops it."""
  spacing_mm = tuple(max(FINEST_MM, mm or FINEST_MM) for mm in preprocess.spacing_mm)
  shape = tuple(
    max(size, math.ceil(least / mm))
    for size, least, mm in zip(
      preprocess.shape, head.SMALLEST_MM, spacing_mm, strict=True
    )
  )
  return shape, spacing_mm


def _isotropic(config):
  presets.use_kernel(config, (3, 3, 3), (2, 2, 2), channels=(48, 64))
  config.evaluate.segmenter.patch = (2, 2, 2)
  config.evaluate.segmenter.kernels = ((3, 3, 3),) * 2
  config.evaluate.segmenter.strides = ((2, 2, 2),)


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
