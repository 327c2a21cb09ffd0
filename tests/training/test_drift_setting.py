"""Which drift a config means: in training, in sampling, given or found."""

import json

import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.diffusion import schedules
from ldm_jax.training import drift_setting
from ldm_jax.workfolder import WorkFolder


def config_of(**flags):
  return override(defaults(), {f'adapt.drift.{k}': v for k, v in flags.items()})


@pytest.fixture
def work(tmp_path):
  return WorkFolder(tmp_path)


def test_without_a_value_there_is_no_drift(work):
  assert drift_setting.in_training(config_of(), work) is None
  assert drift_setting.in_sampling(config_of(), work) is None


def test_training_and_sampling_may_each_do_without(work):
  config = config_of(value=0.1, random_std=0.2, training=False)
  assert drift_setting.in_training(config, work) is None
  found = drift_setting.in_sampling(config, work)
  assert found.value == 0.1 and found.random_std == 0.0, 'offsets are for training'
  assert found.target == 'shifted', 'there is no raw target to undo'
  config = config_of(value=0.1, random_std=0.2, sampling=False)
  assert drift_setting.in_sampling(config, work) is None
  assert drift_setting.in_training(config, work).random_std == 0.2


def test_what_a_search_found_is_used_and_nothing_before_it(work):
  config = config_of(search='closed_form', value=0.5)
  with pytest.raises(ValueError, match='--stages=adapt'):
    drift_setting.in_training(config, work)
  assert drift_setting.in_training(config, work, searched=False).value == 0.5
  path = work.root.joinpath(*drift_setting.FOUND)
  path.parent.mkdir(parents=True)
  path.write_text(json.dumps({'value': 0.25}))
  assert drift_setting.in_training(config, work).value == 0.25
  assert drift_setting.in_sampling(config, work).value == 0.25


def test_a_drift_of_sampling_alone_does_not_repeat_training():
  assert drift_setting.unread(config_of()) == ('-adapt.drift.sampling',)
  assert drift_setting.unread(config_of(training=False)) == ('-adapt.drift',)
  assert drift_setting.unread(config_of(search='loss')) == ()


def test_a_drift_that_cannot_be_is_refused_before_any_stage():
  flow = schedules.schedule('flow', 20)
  shifted = {'variant': 'posterior_constant'}
  drift_setting.check(config_of(value=0.1), flow)
  with pytest.raises(ValueError, match='which the schedule'):
    drift_setting.check(config_of(value=0.1, **shifted), flow)
  with pytest.raises(ValueError, match='which the schedule'):
    drift_setting.check(config_of(search='loss', **shifted), flow)
  drift_setting.check(config_of(**shifted), flow)  # no drift, no check
