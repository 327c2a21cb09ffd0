"""What the train steps of a config would take on a slice, as lines for the terminal."""

from collections.abc import Mapping
from typing import Any

from ldm_jax.report import doctor_text

BOUNDS = {
  'operations': 'arithmetic',
  'memory': 'memory traffic',
  'messages': 'messages between devices',
}
# Besides its programs, a device holds what the runtime keeps.
FULL = 0.9
ADVICE = (
  'smaller batches (diffusion.batch_size, adapt.privacy.chunk_size and microbatch), '
  'diffusion.model.remat=True, a larger mesh.fsdp, bfloat16 or more devices'
)
ESTIMATED = (
  'compiled on a CPU with the lowerings of a GPU: memory and traffic are estimates'
)


def lines(found: Mapping[str, Any]) -> str:
  """Verdict, memory, time and messages of each step.

  Args:
    found: content of doctor/topology.json.
  """
  how = 'compiled for it by libtpu' if found['compiled'] else ESTIMATED
  text = [
    f'On {found["topology"]}: {found["devices"]} devices {found["chip"]} of '
    f'{size(found["memory_bytes"])} each ({how})'
  ]
  text += [f'  {note}' for note in found['notes']]
  for name, step in found['steps'].items():
    text += [f'  {line}' for line in _step(name, step, found['memory_bytes'])]
  if any(not step.get('fits', True) for step in found['steps'].values()):
    text.append(f'  What helps: {ADVICE}.')
  text.append(
    '  Seconds are those of a roofline, a lower bound: real steps take longer, often '
    'twice as long.'
  )
  return '\n'.join(text)


def _step(name, step, memory):
  if 'fault' in step:
    return [f'{name:8s} would be refused: {step["fault"]}']
  share = step['bytes'] / memory
  verdict = 'fits' if step['fits'] else 'DOES NOT FIT'
  if step['fits'] and share > FULL:
    verdict = 'hardly fits'
  first = f'{name:8s} {verdict}: {size(step["bytes"])} a device ({share:.0%})'
  if 'seconds' not in step:
    return [first]
  told = [
    f'{first}, {seconds(step["seconds"])} a step, bound by {BOUNDS[step["bound"]]}',
    f'{"":8s} a device and step: {step["operations"] / 1e9:,.4g} GFLOP, '
    f'{size(step["traffic_bytes"])} of memory traffic, '
    f'{size(step["sent_bytes"])} sent',
  ]
  for kind, figures in step['collectives'].items():
    told.append(
      f'{"":8s} {kind}: {figures["count"]:g} a step, {size(figures["bytes"])}'
    )
  return told


def seconds(value: float) -> str:
  """'3.2 ms', or as `doctor_text.duration`."""
  return f'{1e3 * value:.3g} ms' if value < 1 else doctor_text.duration(value)


def size(num_bytes: float) -> str:
  """Bytes as KiB, MiB or GiB."""
  for limit, unit in ((2**30, 'GiB'), (2**20, 'MiB')):
    if num_bytes >= limit:
      return f'{num_bytes / limit:.3g} {unit}'
  return f'{num_bytes / 2**10:.3g} KiB'
