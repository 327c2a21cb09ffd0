"""What configs set alike: the cohorts of a phantom, the kernels of all levels."""

# Cohort, the phantom's site, seed: the public one comes from another site.
PHANTOM_COHORTS = (
  ('public', 'public', 1),
  ('private', 'private', 2),
  ('test', 'private', 3),
  # Other people of the private site, for those presets that name a number of them.
  ('measuring', 'private', 4),
)


def use_phantom(config, layout, num_patients, **options):
  """Sets the cohorts of a phantom; requests come from its documented population.

  Args:
    config: ConfigDict to change.
    layout: 'phantom_...'.
    num_patients: dict cohort -> number.
    options: of the layout, beside those that tell the cohorts apart.
  """
  for name, site, seed in PHANTOM_COHORTS:
    if name not in num_patients:
      continue
    section = config.data[name]
    section.layout, section.part = layout, ''
    with section.options.unlocked():
      section.options.update(
        site=site, seed=seed, name=name, num_patients=num_patients[name], **options
      )
  config.sample.requests = 'population'


def use_kernel(config, kernel, stride, channels):
  """One kernel and stride at all levels of autoencoder and denoiser, no attention.

  Args:
    config: ConfigDict to change; the autoencoder's channels are set already.
    kernel, stride: one entry per axis.
    channels: of the denoiser's levels.
  """
  encoder, denoiser = config.autoencoder.model, config.diffusion.model
  denoiser.channels = channels
  for model in (encoder, denoiser):
    model.kernels = (kernel,) * len(model.channels)
    model.strides = (stride,) * (len(model.channels) - 1)
  denoiser.attention_levels = (False,) * len(channels)
