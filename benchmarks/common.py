"""Ours beside the peer: interleaved times, peaks of memory, one line of JSON.

A benchmark is a table {name: `Case`}. MONAI (extra `interop`) is imported for its side
only, so that neither library's memory counts for the other.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

# Torch's threads would otherwise spin between its operators, on the cores that ours
# needs next: an interleaved run is fair only if who has finished sleeps.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

import allocator
import jax
import jax.numpy as jnp
import memory
import numpy as np
from flax.traverse_util import unflatten_dict

from ldm_jax.models import convert

TOLERANCE = 1e-4
# Dense bfloat16 products, from the vendors' data sheets.
PEAK_FLOPS = {'H200': 989e12, 'H100': 989e12, 'A100': 312e12, 'L4': 121e12}
SIDES = ('ours', 'peer')


@dataclasses.dataclass(frozen=True)
class Case:
  """One comparison.

  Attributes:
    networks: {name: (convert.Reference, MONAI config, name of its class)}.
    ours: ({name: module}, {name: parameters}) -> step() that ends when it is computed.
    peer: ({name: network}, Peer) -> step(), likewise.
    outputs: (modules, parameters, networks, Peer) -> two arrays that must be equal.
  """

  networks: dict
  ours: Callable
  peer: Callable
  outputs: Callable

  def our_step(self, params, dtype):
    modules = {
      name: entry[0].module.clone(dtype=dtype) for name, entry in self.networks.items()
    }
    return self.ours(modules, params)

  def any_params(self):
    """Parameters of the right shapes, for what needs no reference."""
    rng = np.random.default_rng(0)
    return {
      name: unflatten_dict(
        {
          path: rng.normal(0, 0.02, shape).astype(np.float32)
          for path, shape in reference.shapes().items()
        }
      )
      for name, (reference, *_) in self.networks.items()
    }


class Peer:
  """MONAI on a device: on a GPU with fused attention and autocast to bfloat16."""

  def __init__(self, device):
    try:
      import monai.networks.nets as nets
      import torch
    except ImportError as error:
      raise SystemExit(
        f'{error}: this compares with MONAI; pip install -e .[interop]'
      ) from error
    torch.set_num_threads(os.cpu_count())
    self.torch, self.nets, self.device = torch, nets, device
    self.is_gpu = device == 'cuda'

  def networks(self, case):
    """{name: network}, the same weights in every call, none of them zero."""
    torch, found = self.torch, {}
    for name, (_, config, kind) in case.networks.items():
      torch.manual_seed(0)
      flash = {'use_flash_attention': True} if self.is_gpu else {}
      network = getattr(self.nets, kind)(**config, **flash)
      with torch.no_grad():
        for value in network.parameters():
          if value.ndim > 1 and not value.any():
            value.normal_(0, 0.02)
      found[name] = network.to(self.device)
    return found

  def step(self, case, networks):
    torch, step = self.torch, case.peer(networks, self)

    def run():
      with torch.autocast(self.device, torch.bfloat16, enabled=self.is_gpu):
        step()
      if self.is_gpu:
        torch.cuda.synchronize()

    return run

  def tensor(self, array):
    """Ours (b,*space,c) -> theirs (b,c,*space)."""
    array = np.ascontiguousarray(np.moveaxis(np.asarray(array), -1, 1))
    return self.torch.from_numpy(array).to(self.device)

  def array(self, tensor):
    """Theirs (b,c,*space) -> ours (b,*space,c)."""
    return np.moveaxis(tensor.detach().float().cpu().numpy(), 1, -1)


def main(description, make_cases):
  """Measures make_cases(quick) -> {name: Case} as the command line asks."""
  parser = argparse.ArgumentParser(description=description)
  parser.add_argument('--cases', default='', help='names, comma-separated; all if none')
  parser.add_argument('--repeats', type=int, default=11, help='timed runs of each side')
  parser.add_argument('--quick', action='store_true', help='tiny shapes: does it run?')
  parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
  parser.add_argument(
    '--memory', choices=SIDES, help='print the peaks of one case and side only'
  )
  options = parser.parse_args()
  jax.config.update('jax_platforms', options.device)
  cases = make_cases(options.quick)
  names = options.cases.split(',') if options.cases else list(cases)
  unknown = sorted(set(names) - set(cases))
  if unknown:
    parser.error(f'unknown cases {unknown}; choose from {", ".join(cases)}')
  if options.memory:
    print(json.dumps(peak_memory(cases[names[0]], options.memory, options.device)))
    return
  peer = Peer(options.device)
  found, peak = {}, peak_flops(options.device)
  for name in names:
    found[name] = _measure(cases[name], options, peer, peak)
    found[name] |= _memory(name, options)
    print(name, json.dumps(found[name]), file=sys.stderr)
  worst = min(found, key=lambda name: found[name]['speed_ratio_to_peer'])
  print(
    json.dumps(
      {
        'benchmark': os.path.basename(sys.argv[0]).removesuffix('.py'),
        'speed_ratio_to_peer': found[worst]['speed_ratio_to_peer'],
        'worst_case': worst,
        'cases': found,
        **circumstances(options.repeats, options.device, peer),
        'peak_gflops_per_second': round(peak / 1e9, 1),
      }
    )
  )


def _measure(case, options, peer, peak):
  """Medians of alternating runs, and how far they are from the peak."""
  from torch.utils.flop_counter import FlopCounterMode

  networks = peer.networks(case)
  params = {
    name: convert.to_ours(
      reference, {k: v.cpu().numpy() for k, v in networks[name].state_dict().items()}
    )
    for name, (reference, *_) in case.networks.items()
  }
  _check_equal(case, params, networks, peer)
  dtype = jnp.bfloat16 if options.device == 'cuda' else None
  steps = case.our_step(params, dtype), peer.step(case, networks)
  with FlopCounterMode(display=False) as counter:
    steps[1]()
  flops = counter.get_total_flops()
  seconds = [statistics.median(side) for side in interleaved(steps, options.repeats)]
  figures = {'speed_ratio_to_peer': round(seconds[1] / seconds[0], 3)}
  for side, value in zip(SIDES, seconds, strict=True):
    figures[f'{side}_seconds'] = round(value, 5)
    figures[f'{side}_gflops_per_second'] = round(flops / value / 1e9, 1)
    figures[f'{side}_fraction_of_peak'] = round(flops / value / peak, 4)
  return {**figures, 'gflop': round(flops / 1e9, 2)}


def _check_equal(case, params, networks, peer):
  modules = {name: entry[0].module for name, entry in case.networks.items()}
  with jax.default_matmul_precision('highest'):
    ours, theirs = case.outputs(modules, params, networks, peer)
  error = np.abs(ours - theirs).max() / np.abs(theirs).max()
  if not error < TOLERANCE:
    raise SystemExit(f'the two sides differ by {error:.2g} of the largest output')


def interleaved(steps, repeats, warm_up=2):
  """Seconds of each step, [[...], ...], run one after the other `repeats` times."""
  seconds = [[] for _ in steps]
  for i in range(warm_up + repeats):
    for step, own in zip(steps, seconds, strict=True):
      began = time.perf_counter()
      step()
      own += [time.perf_counter() - began] if i >= warm_up else []
  return seconds


def _memory(name, options):
  """Peaks of both sides, each in a process of its own."""
  found = {}
  for side in SIDES:
    command = [sys.executable, sys.argv[0], f'--cases={name}', f'--memory={side}']
    command += [f'--device={options.device}', *['--quick'] * options.quick]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    peaks = json.loads(answer.stdout)
    found |= {f'{side}_{name}': round(value, 1) for name, value in peaks.items()}
  return found


def peak_memory(case, side, device):
  """{'peak_mib': ..., ...} of a few steps of one side.

  On a GPU what its allocator held; on a CPU what this process held above the time
  before building, with compilation and, as `running_peak_mib`, in the steps after it.
  """
  peer = Peer(device) if side == 'peer' else None
  jax.block_until_ready(jnp.zeros(1))
  base = memory.resident()
  if side == 'ours':
    step = case.our_step(case.any_params(), jnp.bfloat16 if device == 'cuda' else None)
  else:
    step = peer.step(case, peer.networks(case))
  step()
  if device == 'cuda':
    step()
    if side == 'peer':
      return {'peak_mib': peer.torch.cuda.max_memory_allocated() / 2**20}
    stats = jax.devices()[0].memory_stats()
    return {'peak_mib': stats['peak_bytes_in_use'] / 2**20}
  return memory.peak_of(step, base)


def peak_flops(device):
  """FLOP/s of the GPU from its data sheet; of the CPU, of the best large product."""
  if device == 'cuda':
    kind = jax.devices()[0].device_kind
    return next((v for k, v in PEAK_FLOPS.items() if k in kind), float('nan'))
  n = 2048
  x = jnp.ones((n, n))
  product = jax.jit(jnp.matmul)
  step = lambda: jax.block_until_ready(product(x, x))
  return 2 * n**3 / min(interleaved([step], 7)[0])


def circumstances(repeats, device, peer):
  """What a figure depends on beside the code."""
  names = ('jax', 'flax', 'optax', 'torch', 'monai')
  hardware = platform.processor() or platform.machine()
  if device == 'cuda':
    hardware = jax.devices()[0].device_kind
  else:
    with open('/proc/cpuinfo') as info:
      models = [line.split(':')[1].strip() for line in info if 'model name' in line]
    hardware = models[0] if models else hardware
  return {
    'command': ' '.join(['python', *sys.argv]),
    'repeats': repeats,
    'hardware': hardware,
    'cores': os.cpu_count(),
    'threads': peer.torch.get_num_threads(),
    'omp_wait_policy': os.environ['OMP_WAIT_POLICY'],
    'precision': 'bfloat16' if device == 'cuda' else 'float32',
    'versions': {name: importlib.metadata.version(name) for name in names},
    'keeps_memory': allocator.KEEPS_MEMORY,
  }
