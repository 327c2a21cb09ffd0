"""Laws of what is refused before hours of training."""

import types

import pytest

from ldm_jax.config.parsing import override
from ldm_jax.pipeline import preflight
from ldm_jax.pipeline.run import Run
from ldm_jax.workfolder import WorkFolder
from tests import micro


def opened(root, num_patients=6, **changes):
  run = Run(override(micro.get_config(), changes), WorkFolder(root))
  private = types.SimpleNamespace(
    num_patients=num_patients, patient_names=[f'p{n}' for n in range(num_patients)]
  )
  vars(run)['prepared'] = {'private': private}
  return run


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'adapt.privacy.delta': 0.5}, 'delta'),
    ({'adapt.privacy.batch_size': 7}, 'batch_size'),
    ({'mesh.data': 2, 'adapt.privacy.chunk_size': 3}, 'adapt.privacy.chunk_size'),
    ({'mesh.data': 2, 'diffusion.batch_size': 3}, 'diffusion.batch_size'),
  ],
)
def test_sizes_that_adapt_would_refuse_are_refused_at_once(tmp_path, changes, words):
  preflight.check_sizes(opened(tmp_path))
  with pytest.raises(ValueError, match=words):
    preflight.check_sizes(opened(tmp_path, **changes))


def test_an_adapted_model_is_not_replaced_by_nothing(tmp_path):
  empty = {'data.private.layout': ''}
  preflight.check_keeps_model(opened(tmp_path, **empty))
  work = WorkFolder(tmp_path)
  for adapted in (False, True):
    work.restart('adapt', 'a')
    work.finish('adapt', 'a', adapted=adapted)
    if not adapted:
      preflight.check_keeps_model(opened(tmp_path, **empty))
  preflight.check_keeps_model(opened(tmp_path))
  with pytest.raises(ValueError, match=r'data\.private is empty.*--stages=sample'):
    preflight.check_keeps_model(opened(tmp_path, **empty))


@pytest.mark.parametrize(
  ('key', 'value', 'words'),
  [
    ('diffusion.prediction', 'noise', 'prediction'),
    ('diffusion.schedule.name', 'square', 'schedule'),
    ('sample.solver', 'midpoint', 'solver'),
    ('sample.steps', 21, 'steps'),
  ],
)
def test_a_process_that_cannot_be_is_refused_before_any_stage(key, value, words):
  config = micro.get_config()
  preflight.check_process(config)
  with pytest.raises(ValueError, match=words):
    preflight.check_process(override(config, {key: value}))


def test_a_schedule_that_keeps_signal_is_noted_and_the_advised_flag_ends_it():
  config = micro.get_config()  # linear over 20 times
  note = preflight.note_on_noise(config)
  assert 'keeps 0.7' in note
  key = 'diffusion.schedule.zero_terminal_snr'
  assert f'--config.{key}=True' in note
  assert preflight.note_on_noise(override(config, {key: True})) == ''
