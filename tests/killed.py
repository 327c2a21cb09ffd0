"""The command line in processes of their own that a test kills.

They are forks of one process that has imported everything and computed nothing: jax is
imported once, however many are killed, and its threads start after the fork.
"""

import functools
import importlib
import multiprocessing
import os
import pathlib
import signal
import sys


@functools.cache
def _forks():
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['ldm_jax.stages'])
  return context


def start(flags, errors, moment=None):
  """Starts `ldm-jax FLAGS`; `errors` is the file of its messages.

  Args:
    moment: (module:name, n, 'before' or 'after'): where it kills itself, at the n-th
      call of a function; None if it does not.

  Returns:
    The process; `exitcode` is -9 after SIGKILL.
  """
  process = _forks().Process(target=_run, args=(flags, str(errors), moment))
  process.start()
  return process


def run(flags, errors, moment=None):
  """As `start`, to the end: -> (exit code, what it said)."""
  process = start(flags, errors, moment)
  process.join()
  return process.exitcode, pathlib.Path(errors).read_text()[-2000:]


def _run(flags, errors, moment):
  with open(errors, 'w') as file:
    os.dup2(file.fileno(), sys.stdout.fileno())
    os.dup2(file.fileno(), sys.stderr.fileno())
  from ldm_jax import main

  if moment:
    _kill_at(*moment)
  sys.exit(main.main(flags))


def _kill_at(place, count, when):
  module, _, path = place.partition(':')
  owner, calls = importlib.import_module(module), []
  *parents, name = path.split('.')
  for parent in parents:
    owner = getattr(owner, parent)
  original = getattr(owner, name)

  def kill(now):
    if now == when and len(calls) == count:
      os.kill(os.getpid(), signal.SIGKILL)  # no code of it can answer

  def wrapped(*args, **kwargs):
    calls.append(1)
    kill('before')
    result = original(*args, **kwargs)
    kill('after')
    return result

  setattr(owner, name, wrapped)
