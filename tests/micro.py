"""The smallest experiment that still has every part: seconds once it is compiled.

`--config=tests/micro.py`, or `micro.get_config()` in a test. Two of the three levels of
everything are gone; privacy, both cohorts, labels and counterfactuals are there.
"""

from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import parse_arg

SHAPE, SPACING_MM = (5, 16, 16), (16.0, 11.0, 11.0)
PATIENTS = {'public': 6, 'private': 6, 'test': 4, 'measuring': 3}


def get_config(arg=''):
  """Config of a few phantom patients and a few steps of everything."""
  args = parse_arg(arg, ('micro',), private=True, measuring=False, steps=6)
  config = defaults()
  config.name = 'micro'
  for name, num_patients in PATIENTS.items():
    if not getattr(args, name, True):
      continue
    section = config.data[name]
    section.layout, section.part = 'phantom_cardiac', ''
    with section.options.unlocked():
      section.options.update(
        name=name,
        site='public' if name == 'public' else 'private',
        seed=1,
        num_patients=num_patients,
        shape=SHAPE,
        spacing_mm=SPACING_MM,
      )
  config.data.preprocess.shape = SHAPE
  shrink(config, args.steps)
  config.sample.requests = 'population'
  config.sample.sweep = ('LVEDV',)
  config.evaluate.labels = (0, 1, 2, 3)
  config.evaluate.measures = (
    {
      'name': 'LV_volume',
      'kind': 'volume',
      'classes': (1,),
      'attributes': ('LVESV', 'LVEDV'),
      'by': 'ESED',
    },
  )
  # Read where sample.within_patient is set.
  config.evaluate.within_patient.same = (
    {'name': 'myocardium', 'kind': 'volume', 'classes': (2,)},
  )
  config.evaluate.within_patient.ejection = (
    {'name': 'LVEF', 'classes': (1,), 'by': 'ESED'},
  )
  with config.counterfactual.set.unlocked():
    config.counterfactual.set.LVEDV = '+20'
  return config


def shrink(config, steps=6):
  """Makes every network and every run of the config as small as it goes."""
  kernel, stride = (1, 3, 3), (1, 2, 2)
  config.autoencoder.model.patch, config.autoencoder.model.upsampling = (), 'nearest'
  config.autoencoder.model.channels = (8, 8)
  config.autoencoder.model.kernels = (kernel, kernel)
  config.autoencoder.model.strides = (stride,)
  config.autoencoder.model.num_res_blocks = 1
  config.autoencoder.model.latent_channels = 2
  config.autoencoder.model.norm_groups = 4
  config.autoencoder.optimizer, config.autoencoder.learning_rate = 'adam', 3e-3
  config.autoencoder.steps = steps
  config.autoencoder.batch_size = 4
  config.diffusion.schedule.name, config.diffusion.schedule.beta_end = 'linear', 7e-2
  config.diffusion.schedule.zero_terminal_snr = False
  config.sample.spacing = 'linspace'
  config.diffusion.schedule.num_timesteps = 20
  config.diffusion.model.channels = (8, 16)
  config.diffusion.model.kernels = (kernel, (3, 3, 3))
  config.diffusion.model.strides = (stride,)
  config.diffusion.model.attention_levels = (False, False)
  config.diffusion.model.num_res_blocks = 1
  config.diffusion.model.num_head_channels = 8
  config.diffusion.model.norm_groups = 4
  config.diffusion.conditioner.width = 8
  config.diffusion.conditioner.num_heads = 2
  config.diffusion.conditioner.by = ('attention', 'embedding', 'channels')
  config.diffusion.optimizer, config.diffusion.learning_rate = 'adam', 1e-3
  config.diffusion.steps = steps
  config.diffusion.batch_size = 4
  config.adapt.steps = steps
  config.adapt.batch_size = 4
  config.adapt.prior.num = 5
  config.adapt.prior.steps = 4
  config.adapt.privacy.batch_size = 3
  config.adapt.privacy.chunk_size = 4
  config.adapt.privacy.microbatch = 2
  config.adapt.privacy.noise_multiplicity = 2
  config.adapt.privacy.seed = 0
  config.sample.num = 4
  config.sample.steps = 4
  config.sample.batch_size = 4
  config.counterfactual.num = 2
  config.counterfactual.steps = 4
  config.counterfactual.null_cycles = 2
  config.evaluate.segmenter.patch = ()
  config.evaluate.segmenter.optimizer = 'adam'
  config.evaluate.segmenter.learning_rate = 3e-3
  config.evaluate.segmenter.channels = (4, 8)
  config.evaluate.segmenter.kernels = (kernel, kernel)
  config.evaluate.segmenter.strides = (stride,)
  config.evaluate.segmenter.norm_groups = 4
  config.evaluate.segmenter.steps = 4
  config.evaluate.segmenter.batch_size = 4
  config.evaluate.two_sample.seeds = 1
  config.evaluate.two_sample.steps = 4
  config.evaluate.two_sample.batch_size = 4
  config.evaluate.num_bootstrap = 20
  config.run.log_every = 1
  config.run.checkpoint_every = 2
  # One device: a step on four is compared with a step on one in tests/training.
  config.mesh.data = 1
