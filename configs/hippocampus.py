"""T1 crops of the hippocampus (Medical Segmentation Decathlon, Task04), 1 mm isotropic.

  ldm-jax --config=configs/hippocampus.py:small,root=FOLDER --workdir=W

FOLDER holds participants.tsv, images/ and labels/; the patients are split into public,
private and test parts. Requested: volume of the anterior and posterior part in mm3.
"""

from ldm_jax.config import ablations, presets
from ldm_jax.config.autoencoder import use_recipe
from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import parse_arg


def get_config(arg=''):
  """Config for `preset,root=FOLDER[,autoencoder=kl|vq|adversarial]`."""
  args = parse_arg(arg, ('tiny', 'small', 'full'), root='', autoencoder='kl')
  if not args.root:
    raise ValueError(
      'configs/hippocampus.py needs the folder of the data set: '
      f'--config=configs/hippocampus.py:{args.preset},root=FOLDER.'
    )
  config = defaults()
  config.name = f'hippocampus-{args.preset}'
  for name in ('public', 'private', 'test'):
    section = config.data[name]
    section.layout, section.root = 'decathlon', args.root
  {'tiny': _tiny, 'small': _small, 'full': _full}[args.preset](config)
  use_recipe(config, args.autoencoder)
  config.sample.sweep = ('anterior_mm3', 'posterior_mm3')
  config.evaluate.labels = (0, 1, 2)
  config.evaluate.label_names = ('background', 'anterior', 'posterior')
  config.evaluate.measures = tuple(
    {
      'name': f'{part}_volume',
      'kind': 'volume',
      'classes': (label,),
      'attributes': (f'{part}_mm3',),
      'scale': 1000.0,
    }
    for label, part in ((1, 'anterior'), (2, 'posterior'))
  )
  with config.counterfactual.set.unlocked():
    config.counterfactual.set.anterior_mm3 = '+400'
  # About 30 patients: noise this strong needs few, small steps. Small enough for a
  # cohort of a dozen.
  config.adapt.privacy.batch_size = 4
  config.adapt.privacy.chunk_size = 4
  config.adapt.steps = 20
  config.adapt.learning_rate = 1e-5
  return config


def sweep():
  """What each means against the noise of private training buys at epsilon 1, 3, 10.

  At the config's own rate hardly anything moves (docs/real-scans.md). Here it is
  twenty times larger, the default of the library, so that noise shows. 'utility': of
  what use samples are for training (docs/train-on-synthetic.md).
  """
  noise = ablations.lower_noise(
    lora_learning_rate=1e-2,
    learning_rate=2e-4,
    attention_learning_rate=2e-3,
    num_draws=4,
    num_bands=2,
  )
  return {'noise': noise, 'utility': ablations.utility(seeds=(0,))}


def _isotropic(config, channels):
  kernel, stride = (3, 3, 3), (2, 2, 2)
  presets.use_kernel(config, kernel, stride, channels)
  config.evaluate.segmenter.patch = stride
  config.evaluate.segmenter.kernels = (kernel,) * 2
  config.evaluate.segmenter.strides = (stride,)


def _tiny(config):
  config.data.preprocess.shape = (20, 28, 20)
  config.data.preprocess.spacing_mm = (2.0, 2.0, 2.0)
  _isotropic(config, channels=(48, 64))
  config.diffusion.steps = 400
  config.sample.num = 16
  config.sample.steps = 25
  config.counterfactual.steps = 25


def _small(config):
  config.data.preprocess.shape = (24, 32, 24)
  config.data.preprocess.spacing_mm = (1.5, 1.5, 1.5)
  _isotropic(config, channels=(48, 64))
  config.autoencoder.steps = 600
  config.diffusion.steps = 2000
  # Without augmentation the networks memorise thirty patients.
  config.augment.copies = 8
  config.augment.shift = (1, 1, 1)
  config.augment.gamma = 0.2
  config.sample.num = 32
  config.sample.steps = 25
  config.sample.batch_size = 8
  config.counterfactual.steps = 25


def _full(config):
  config.data.preprocess.shape = (40, 56, 40)
  config.data.preprocess.spacing_mm = (1.0, 1.0, 1.0)
  config.autoencoder.model.patch = ()
  config.autoencoder.model.channels = (32, 64, 64)
  _isotropic(config, channels=(64, 128))
  config.autoencoder.steps = 5000
  config.diffusion.steps = 20000
  config.diffusion.batch_size = 32
  config.sample.num = 200
