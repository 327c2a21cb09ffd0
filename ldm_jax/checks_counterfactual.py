"""What `counterfactual` must satisfy before any data are read."""

from ldm_jax.config import flatten, require


def check(config):
  """Raises ValueError naming the key, what came and what is required."""
  section, key = config.counterfactual, 'counterfactual.editor'
  value = section.least_change
  require(value >= 0, 'counterfactual.least_change', value, 'a number from 0 up')
  attends = 'attention' in config.diffusion.conditioner.by
  required = "another where 'attention' is not in diffusion.conditioner.by"
  require(attends or section.editor != 'pix2pix_zero', key, section.editor, required)
  value = section.ddpm.skip
  require(0 <= value < 1, 'counterfactual.ddpm.skip', value, 'a share below 1')
  value = section.sdedit.strength
  key = 'counterfactual.sdedit.strength'
  require(0 < value <= 1, key, value, 'a share above 0, at most 1')
  for key in ('margin', 'num', 'ddim.num_iterations'):
    value = flatten(section)[key]
    require(value >= 0, f'counterfactual.{key}', value, 'a whole number from 0 up')
  for key in ('weight', 'auto_correlation', 'kl'):
    value = section.pix2pix_zero[key]
    key = f'counterfactual.pix2pix_zero.{key}'
    require(value >= 0, key, value, 'a number from 0 up')
