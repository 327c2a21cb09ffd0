"""What `adapt.pairs` changes: which examples there are, what else is learned.

Without them both functions return what there is without pairs.
"""

from ldm_jax import staging
from ldm_jax.data import longitudinal
from ldm_jax.models import paired as reading
from ldm_jax.training import networks, paired, private


def examples(config, split, latents):
  """What a step draws from: `private.patient_arrays` of scans, or of their pairs.

  Args:
    config: of the run.
    split: the cohort.
    latents: (v n,...,c), v versions of its entries.

  Raises:
    ValueError: pairs are asked for and there are none.
  """
  section, conditions = config.adapt.pairs, staging.conditions(config, split)
  if not section.use:
    return private.patient_arrays(split, latents, conditions)
  limits = section.min_years, section.max_years, section.adjacent
  found = longitudinal.entry_pairs(split, *limits)
  ways = section.both_directions, section.singles
  return private.patient_arrays(
    *paired.examples(split, latents, conditions, found, *ways)
  )


def parameters(config, schema, latent_shape):
  """Flat parameters that read pairs, which every method trains; {} without pairs."""
  if not config.adapt.pairs.use:
    return {}
  return reading.added(networks.denoiser(config, schema), latent_shape)
