"""What refuses a stage before it begins, as soon as the cohorts are prepared.

A run looks at all its stages before the hours of training that precede them, and each
stage looks again before it works: nothing that is there is replaced by a refusal.
"""

from ldm_jax import adapting, autoencoding, readying, staging
from ldm_jax.training import checkpoint, networks


def check_initial(config, work):
  """Refuses a diffusion.init that is not there or does not fit.

  Raises:
    ValueError: naming what is missing or where the shapes differ.
  """
  if config.diffusion.init:
    split = next(iter(staging.splits_of_store(config, work).values()))
    shapes, _ = networks.denoiser_shapes(config, split.schema)
    checkpoint.check_fits(config.diffusion.init, shapes['unet'], 'diffusion.init')


# Stage -> functions (config, work) -> None that raise ValueError.
CHECKS = {
  'autoencoder': (autoencoding.check,),
  'diffusion': (check_initial,),
  'adapt': (adapting.check_plan, readying.check_method),
  'sample': (staging.check_requests,),
}
