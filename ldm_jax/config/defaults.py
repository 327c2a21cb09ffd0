"""The default value of every config key: each section's module holds its own."""

from ml_collections import ConfigDict

from ldm_jax.config import (
  adapt,
  autoencoder,
  counterfactual,
  data,
  diffusion,
  evaluate,
  export,
  privacy,
  run,
  sample,
)
from ldm_jax.types import Config


def defaults() -> Config:
  """ConfigDict with every key; `configs/*.py` change what their data need."""
  return ConfigDict(
    {
      'name': '',
      # Determines initialisation, data order and sampling noise; never the noise
      # that protects patients.
      'seed': 0,
      'data': data.section(),
      'augment': data.augmentation(),
      'autoencoder': autoencoder.section(),
      'encode': autoencoder.latents(),
      'diffusion': diffusion.section(),
      'adapt': adapt.section(),
      'sample': sample.section(),
      'counterfactual': counterfactual.section(),
      'evaluate': evaluate.section(),
      'export': export.section(),
      'audit': privacy.audit(),
      'ledger': privacy.ledger(),
      'mesh': run.mesh(),
      'doctor': run.doctor(),
      'run': run.section(),
    }
  )
