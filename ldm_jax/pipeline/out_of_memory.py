"""What is said when the memory of the machine or of a device is not enough."""

import contextlib
from collections.abc import Iterator

from ldm_jax.config.parsing import flatten
from ldm_jax.types import Config

REMAT = 'diffusion.model.remat'  # computes again instead of remembering
# Stage -> keys that lower its memory, the most effective ones first.
KEYS = {
  'prepare': ('run.workers',),
  'autoencoder': ('autoencoder.batch_size', 'autoencoder.model.channels'),
  'encode': ('autoencoder.batch_size',),
  'diffusion': ('diffusion.batch_size', REMAT, 'diffusion.model.channels'),
  'adapt': ('adapt.batch_size', 'adapt.prior.batch_size'),
  'sample': ('sample.batch_size', 'sample.decode_tile'),
  'counterfactual': ('sample.batch_size', 'counterfactual.num'),
  'evaluate': ('sample.batch_size', 'evaluate.segmenter.batch_size'),
}
PRIVATE = ('adapt.privacy.microbatch', 'adapt.privacy.chunk_size')
SIGNS = ('RESOURCE_EXHAUSTED', 'out of memory', 'unable to allocate')


def is_meant(error: BaseException) -> bool:
  """Whether an error of numpy, jax or a device says that memory is not enough."""
  text = str(error).lower()
  return isinstance(error, MemoryError) or (
    isinstance(error, RuntimeError | ValueError)
    and any(sign.lower() in text for sign in SIGNS)
    and 'os_error_code' not in text
  )


@contextlib.contextmanager
def advised(stage: str, config: Config) -> Iterator[None]:
  """Turns such an error within the block into one that names the keys to lower.

  Raises:
    MemoryError: naming the stage, the keys and their values.
  """
  try:
    yield
  except Exception as error:
    if not is_meant(error):
      raise
    raise MemoryError(advice(stage, config, error)) from error


def advice(stage: str, config: Config, error: BaseException) -> str:
  """One paragraph: what a stage ran out of, and what to set."""
  flat, keys = flatten(config), KEYS.get(stage, ())
  if stage == 'adapt' and config.adapt.privacy is not None:
    keys = PRIVATE
  told = [
    f'set --config.{key}=True' if flat[key] is False else f'{key} (now {flat[key]})'
    for key in keys
    if key in flat and flat[key] is not True
  ]
  words = ' '.join(str(error).split())[:200]
  going_on = ' An interrupted run goes on with them.' if keys is PRIVATE else ''
  also = f'Lower {", ".join(told)}, or' if told else 'Lower'
  return (
    f'{stage}: memory is not enough ({words}). {also} data.preprocess.shape, or use a '
    f'machine with more.{going_on} What was finished before is intact.'
  )
