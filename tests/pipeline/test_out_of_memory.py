"""Out of memory ends in advice: keys that exist, and that lower it."""

import numpy as np
import pytest

from ldm_jax.config import parsing
from ldm_jax.config.defaults import defaults
from ldm_jax.pipeline import out_of_memory, runner
from tests import micro


def test_every_advised_key_is_a_key_of_the_config():
  flat = parsing.flatten(defaults())
  for keys in (*out_of_memory.KEYS.values(), out_of_memory.PRIVATE):
    assert set(keys) <= set(flat)
  assert set(out_of_memory.KEYS) <= set(runner.STAGES)


@pytest.mark.parametrize(
  'error',
  [
    MemoryError(),
    RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.'),
    np._core._exceptions._ArrayMemoryError((10**9, 10**9), np.dtype('f4')),
  ],
)
def test_whoever_runs_out_of_memory_is_told_what_to_lower(error):
  config = micro.get_config()
  with (
    pytest.raises(MemoryError, match='diffusion: memory is not enough') as told,
    out_of_memory.advised('diffusion', config),
  ):
    raise error
  words = ('diffusion.batch_size (now 4)', 'set --config.diffusion.model.remat=True')
  assert all(word in str(told.value) for word in words)


def test_a_private_run_is_told_what_changes_no_noise():
  told = out_of_memory.advice('adapt', micro.get_config(), MemoryError())
  assert 'adapt.privacy.microbatch (now 2)' in told and 'batch_size' not in told
  config = parsing.override(micro.get_config(), {'adapt.privacy': 'None'})
  assert 'adapt.batch_size' in out_of_memory.advice('adapt', config, MemoryError())


@pytest.mark.parametrize(
  'error',
  [
    ValueError('shapes differ'),
    OSError(28, 'No space left'),
    ValueError("RESOURCE_EXHAUSTED: Failed to write [os_error_code='28']"),
  ],
)
def test_other_errors_stay_what_they_are(error):
  with (
    pytest.raises(type(error)) as same,
    out_of_memory.advised('diffusion', micro.get_config()),
  ):
    raise error
  assert same.value is error


def test_an_interrupted_run_goes_on_with_other_keys_of_memory(tmp_path):
  """The budget that it has recorded would be lost otherwise."""
  from ldm_jax.pipeline.run import Run
  from ldm_jax.workfolder import WorkFolder

  def begin(**changes):
    config = parsing.override(micro.get_config(), changes)
    run = Run(config, WorkFolder(tmp_path))
    anew = runner.will_start_anew('adapt', run)
    apart = runner._apart_from_memory('adapt', run)
    run.work.restart('adapt', runner.planned('adapt', run), apart)
    return anew, run.name

  first = begin()
  assert first[0]
  changes = {'adapt.privacy.microbatch': 1, 'adapt.privacy.chunk_size': 2}
  assert begin(**changes) == (False, first[1])
  other = begin(**{'adapt.privacy.noise_multiplicity': 1})
  assert other[0] and other[1] != first[1]
