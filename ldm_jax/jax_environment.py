"""What jax and the C library read once, before they are first used: call it early."""

import ctypes
import os
import pathlib
import platform

# Numbers of glibc's mallopt, and what makes it keep all memory that is freed.
ONE_ARENA, NO_MAPS, NO_TRIMMING = (-8, 1), (-4, 0), (-1, -1)
ACCELERATORS = ('/dev/nvidiactl', '/dev/kfd', '/dev/accel0', '/dev/vfio')


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
