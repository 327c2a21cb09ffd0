"""Laws of signals: the step is finished and saved, what is open is closed."""

import signal
import threading
import types

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax import interruption, main
from ldm_jax.training import loop, state
from ldm_jax.training.mesh import make_mesh

BOTH = pytest.mark.parametrize('number', interruption.SIGNALS)


def send(number):
  """The signal, answered before this returns, as Python answers between two lines."""
  signal.raise_signal(number)


def train(folder, signals=(), taken=None):
  """Six steps that add 1, with a checkpoint after the last; signals in some steps."""
  taken = [] if taken is None else taken

  def take_step(current, number):
    taken.append(number)
    if number in dict(signals):
      send(dict(signals)[number])
    trained = {'w': current.trained['w'] + 1}
    return current.replace(step=current.step + 1, trained=trained), {}

  return loop.train(
    take_step,
    state.create({'w': jnp.zeros(2)}, optax.sgd(1.0)),
    6,
    mesh=make_mesh(1),
    folder=folder,
    log=lambda **event: None,
    title='diffusion',
    checkpoint_every=100,
  )


@BOTH
def test_a_signal_saves_the_state_after_the_step_and_says_so(tmp_path, number, capfd):
  with pytest.raises(interruption.Interrupted, match='step 3 of 6 is saved') as stop:
    train(tmp_path, [(2, number)])
  assert stop.value.number == number
  told = capfd.readouterr().err
  assert signal.Signals(number).name in told and 'saved' in told
  taken = []
  final = train(tmp_path, taken=taken)
  assert taken == [3, 4, 5], 'no step is taken twice'
  np.testing.assert_array_equal(final.trained['w'], 6)


def test_a_second_signal_stops_at_once(tmp_path):
  with (
    pytest.raises(interruption.Interrupted, match='without waiting'),
    interruption.after_step('diffusion'),
  ):
    send(signal.SIGINT)
    send(signal.SIGINT)
    raise AssertionError('it went on')


def test_sigterm_that_comes_twice_at_once_counts_once(monkeypatch):
  now = [10.0]
  clock = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(interruption, 'time', clock)
  with (
    pytest.raises(interruption.Interrupted, match='without waiting'),
    interruption.after_step('diffusion') as came,
  ):
    send(signal.SIGTERM)
    now[0] += 1.5
    send(signal.SIGTERM)
    assert came() == signal.SIGTERM
    now[0] += 1.0
    send(signal.SIGTERM)
    raise AssertionError('it went on')


def test_sigterm_during_what_the_first_one_ends_does_not_cut_it():
  closed = []
  with pytest.raises(interruption.Interrupted), interruption.terminable():
    try:
      send(signal.SIGTERM)
    finally:
      send(signal.SIGTERM)
      closed.append(True)
  assert closed


def test_a_signal_after_the_last_answer_is_not_lost():
  with (
    pytest.raises(interruption.Interrupted),
    interruption.after_step('diffusion') as came,
  ):
    assert came() == 0
    send(signal.SIGINT)
    assert came() == signal.SIGINT


def test_handlers_are_put_back():
  before = [signal.getsignal(number) for number in interruption.SIGNALS]
  with interruption.terminable(), interruption.after_step('diffusion'):
    assert signal.getsignal(signal.SIGTERM) != before[1]
  assert [signal.getsignal(number) for number in interruption.SIGNALS] == before


def test_outside_the_main_thread_nothing_is_changed():
  """Only the main thread may; a notebook trains in others, too."""
  found = []

  def run():
    with interruption.after_step('diffusion') as came:
      found.append((came(), signal.getsignal(signal.SIGTERM)))

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert found == [(0, signal.getsignal(signal.SIGTERM))]


@BOTH
def test_the_command_ends_with_the_status_of_the_signal(
  tmp_path, monkeypatch, capsys, number
):
  from ldm_jax import stages

  opened = tmp_path / 'open'
  # A shell starts what runs in the background with SIGINT ignored.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)

  def wait(*_):
    opened.touch()
    try:
      send(number)
      raise AssertionError('it went on')
    finally:
      opened.unlink()

  monkeypatch.setattr(stages, 'run', wait)
  try:
    status = main.main(['--config=tests/micro.py', f'--workdir={tmp_path / "work"}'])
  finally:
    signal.signal(signal.SIGINT, before)
  assert status == 128 + number
  assert 'the same command goes on from here' in capsys.readouterr().err
  assert not opened.exists()
