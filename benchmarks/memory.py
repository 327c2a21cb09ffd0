"""How much memory this process holds, as Linux counts it."""

import ctypes


def peak_of(step, base):
  """MiB above `base` that a step held at most: with what came before it, and alone."""
  whole = _resident('VmHWM') - base
  _forget_peak()
  step()
  step()
  running = _resident('VmHWM') - base
  return {'peak_mib': max(whole, running), 'running_peak_mib': running}


def resident():
  """MiB of this process now."""
  return _resident('VmRSS')


def _forget_peak():
  """Gives freed memory back and lets Linux count the peak anew."""
  ctypes.CDLL(None).malloc_trim(0)
  with open('/proc/self/clear_refs', 'w') as refs:
    refs.write('5')


def _resident(field):
  """MiB of this process now (VmRSS) or at most (VmHWM)."""
  with open('/proc/self/status') as status:
    return (
      next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024
    )
