"""Laws of curves on Weights & Biases: off unless asked for, and public ones alone."""

import sys
import types

import pytest

from ldm_jax import wandb_board
from ldm_jax.workfolder import WorkFolder


class Service:
  """What wandb was told."""

  def __init__(self):
    self.begun, self.sent, self.axes = [], [], []

  def init(self, **options):
    self.begun.append(options)
    return types.SimpleNamespace(
      log=self.sent.append,
      define_metric=lambda name, step_metric: self.axes.append((name, step_metric)),
    )


@pytest.fixture
def service(monkeypatch):
  made = Service()
  fake = types.ModuleType('wandb')
  fake.__spec__ = types.SimpleNamespace(name='wandb')
  fake.init, fake.Settings = made.init, dict
  monkeypatch.setitem(sys.modules, 'wandb', fake)
  monkeypatch.setattr(wandb_board, '_OPEN', {})
  return made


def log_of_a_run(work):
  work.log('diffusion', event='start')
  work.log('diffusion', step=3, loss=0.5, note='text')
  work.log('adapt', step=1, loss=0.25, internal=True)
  work.log('adapt', step=2, clipped=0.75)
  work.log('adapt', event='end', volumes=12)


def test_nothing_is_told_unless_a_project_is_named(tmp_path, service):
  log_of_a_run(WorkFolder(tmp_path))
  assert not service.begun and not service.sent


def test_numbers_of_steps_are_sent_but_for_internal_ones(tmp_path, service):
  work = WorkFolder(tmp_path)
  work.wandb_project = 'scans'
  log_of_a_run(work)
  assert service.sent == [
    {'diffusion/step': 3, 'diffusion/loss': 0.5},
    {'adapt/step': 2, 'adapt/clipped': 0.75},
  ]
  assert ('adapt/*', 'adapt/step') in service.axes


def test_neither_config_nor_machine_is_told_and_a_later_command_continues(
  tmp_path, service
):
  for _ in range(2):
    work = WorkFolder(tmp_path)
    work.wandb_project = 'scans'
    log_of_a_run(work)
    wandb_board._OPEN.clear()
  first, second = service.begun
  assert first == second and first['resume'] == 'allow'
  assert set(first) == {'project', 'id', 'resume', 'dir', 'settings'}
  told = first['settings']
  assert told['x_disable_meta'] and told['console'] == 'off'
  assert told['disable_git'] and not told['save_code']


def test_a_project_without_the_package_is_refused_with_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  monkeypatch.setattr(wandb_board.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r'ldm-jax\[wandb\]'):
    wandb_board.check('scans')
  wandb_board.check('')


def test_a_service_that_does_not_start_is_a_sentence(tmp_path, service):
  def fail(**options):
    raise RuntimeError('no key')

  sys.modules['wandb'].init = fail
  work = WorkFolder(tmp_path)
  work.wandb_project = 'scans'
  with pytest.raises(ValueError, match=r'no key.*WANDB_MODE=offline'):
    work.log('diffusion', event='start')
