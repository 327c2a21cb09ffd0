"""The command line: `ldm-jax --config=FILE[:ARGS] --workdir=W [--config.x.y=value]`."""

import argparse
import ctypes
import os
import pathlib
import platform
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import NoReturn

LONGEST = 1900  # characters of an error
ADVICE = 'Free some space or choose another --workdir'
# Numbers of glibc's mallopt, and what makes it keep all memory that is freed.
ONE_ARENA, NO_MAPS, NO_TRIMMING = (-8, 1), (-4, 0), (-1, -1)
# (number of processes, rank of this one) as launchers set them. Both are needed: a
# shell in an allocation has the first alone.
LAUNCHERS = (
  ('SLURM_STEP_NUM_TASKS', 'SLURM_PROCID'),
  ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'),
  ('MV2_COMM_WORLD_SIZE', 'MV2_COMM_WORLD_RANK'),
  ('PMI_SIZE', 'PMI_RANK'),
  ('WORLD_SIZE', 'RANK'),
  ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'),
)
ACCELERATORS = ('/dev/nvidiactl', '/dev/kfd', '/dev/accel0', '/dev/vfio')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the stages the flags ask for.

  Returns:
    Exit status: 0 done, 1 a stage failed, 2 bad config, data or flags; 130 after
    Ctrl-C, 143 after SIGTERM.
  """
  parser = argparse.ArgumentParser(prog='ldm-jax', description=__doc__)
  parser.add_argument(
    '--config', required=True, help='configs/<name>.py[:args], or a config.json'
  )
  parser.add_argument('--workdir', required=True, help='folder for all results')
  parser.add_argument('--stages', default='', help='comma-separated; default: all')
  parser.add_argument('--debug', action='store_true', help='show tracebacks')
  try:
    flags, rest = parser.parse_known_args(argv)
  except SystemExit as stop:
    return int(stop.code or 0)
  if hasattr(sys.stdout, 'reconfigure'):  # a file's name need not be text
    sys.stdout.reconfigure(errors='backslashreplace')
  try:
    require_one_process(os.environ)
    set_up_jax()
    # Imported late: jax reads the environment when it is first imported.
    from ldm_jax import interruption, stages
    from ldm_jax.config import checks, loading, parsing

    overrides = _overrides(rest)
    config = parsing.override(loading.load(flags.config, overrides), overrides)
    if 'doctor' in flags.stages.split(','):
      words = (f'--config={flags.config}', f'--workdir={flags.workdir}', *rest)
      config.doctor.command = words
    with interruption.terminable():
      stages.run(checks.check(config), flags.workdir, flags.stages)
    return 0
  except KeyboardInterrupt as stop:
    told = str(stop) or 'Interrupted'
    print(f'{told}; the same command goes on from here.', file=sys.stderr)
    return 128 + getattr(stop, 'number', signal.SIGINT)
  except ValueError as error:
    return _fail(_noted(error, flags.workdir), 2, flags.debug)
  except Exception as error:
    return _fail(error, 1, flags.debug)


def run() -> NoReturn:
  """Entry point of the console script."""
  sys.exit(main())


def require_one_process(environment: Mapping[str, str]) -> None:
  """Refuses to run as one of several processes, which would write the same folder.

  Args:
    environment: mapping, such as os.environ.

  Raises:
    ValueError: naming the variables that count the other processes.
  """
  told = [
    f'{size}={environment[size]}'
    for size, rank in LAUNCHERS
    if environment.get(rank) and _number(environment.get(size)) > 1
  ]
  hosts = environment.get('TPU_WORKER_HOSTNAMES', '')
  if len(hosts.split(',')) > 1:
    told.append(f'TPU_WORKER_HOSTNAMES={hosts}')
  if told:
    raise ValueError(
      f'ldm-jax was started as one of several processes ({", ".join(told)}), but runs '
      'as one process on one host so far: several would write the same work folder. '
      'Start it once (srun --ntasks=1, no mpirun, one TPU host); it uses all the '
      'devices of its host.'
    )


def set_up_jax() -> None:
  """Settings that jax and the C library read once: call it before importing jax.

  Compiled programs are kept between runs, but for those that call oneDNN
  (`models/conv/cache_guard.py`); a program may use all cores; memory is kept between
  steps (`keep_memory`).
  """
  keep_memory()
  cache = pathlib.Path(
    os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache'), 'ldm_jax', 'jax'
  )
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(cache))
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  # XLA runs one program on few threads of a CPU: more cores work as devices of a mesh.
  # On two, one device is a fifth faster: each device repeats the optimiser's update.
  flags, flag = (
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count',
  )
  if flag not in flags:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1
    # A power of two up to 4, which every shipped batch size is a multiple of.
    devices = 1 << min(max(cores // 2, 1).bit_length() - 1, 2)
    os.environ['XLA_FLAGS'] = f'{flags} {flag}={devices}'.strip()


def keep_memory() -> bool:
  """Makes the C library keep freed memory, so that a step reuses that of the last one.

  By default glibc returns the hundreds of megabytes of a step's temporaries to the
  system, and the next step pays for each of their pages again: up to a fifth of its
  time. Only where the CPU computes, and where glibc is the C library. The environment's
  LDM_JAX_KEEP_MEMORY=0 leaves it as it is.

  Returns:
    Whether it does.
  """
  wanted = os.environ.get('LDM_JAX_KEEP_MEMORY', '1') != '0'
  if not wanted or any(os.path.exists(path) for path in ACCELERATORS):
    return False
  if platform.libc_ver()[0] != 'glibc':
    return False
  mallopt = ctypes.CDLL(None).mallopt
  return all(mallopt(*option) for option in (ONE_ARENA, NO_MAPS, NO_TRIMMING))


def _number(text):
  return int(text) if text and text.isdecimal() else 0


def _overrides(words):
  """['--config.a.b=1', ...] -> {'a.b': '1'}."""
  overrides = {}
  for word in words:
    key, equals, value = word.partition('=')
    if not key.startswith('--config.') or not equals:
      raise ValueError(
        f'The flag {word!r} is not known. Flags are --config, --workdir, --stages, '
        '--debug and overrides like --config.adapt.steps=200 (with =).'
      )
    overrides[key.removeprefix('--config.')] = value
  return overrides


def _noted(error, workdir):
  """The error to show: what names patients is moved to files in the store."""
  if not getattr(error, 'details', None):
    return error
  from ldm_jax.data.cohorts import roles
  from ldm_jax.workfolder import WorkFolder

  try:
    store = WorkFolder(workdir).store
    paths = [str(roles.write_notes(store, *each)) for each in error.details.items()]
  except (OSError, ValueError) as failure:
    return ValueError(f'{error} (The details cannot be written: {failure})')
  return ValueError(
    f'{error} Ids and values are listed in {", ".join(paths)}, which stays with the '
    'data.'
  )


def _fail(error, status, debug):
  if debug:
    traceback.print_exc()
  message = str(error) or type(error).__name__
  if isinstance(error, OSError):
    if ADVICE not in message:
      message = f'{message}: {ADVICE}; what was written so far is intact.'
  elif status == 1:
    message = f'{type(error).__name__}: {message} (--debug shows where)'
  print(f'ldm-jax: {_paragraph(message)}', file=sys.stderr)
  return status


def _paragraph(message):
  """One line of bounded length, whatever a file's name or content put into it."""
  text = ''.join(c if c.isprintable() else ' ' for c in message)
  text = ' '.join(text.split())
  return text if len(text) <= LONGEST else f'{text[: LONGEST - 500]} ... {text[-490:]}'


if __name__ == '__main__':
  run()
