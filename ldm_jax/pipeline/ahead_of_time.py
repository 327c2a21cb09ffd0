"""Whether the train steps of a config fit a slice that is not there, and how fast.

The steps are compiled in a process of their own, which needs no accelerator. For a TPU
slice libtpu compiles them ahead of time, for its devices. For GPUs they are compiled
for as many virtual devices of the CPU, with the lowerings of a GPU: operations and
messages are those of a GPU, traffic and temporaries those of the CPU's program, which
fuses less.

Time by a roofline [Williams09]: a program takes as long as the slower of its operations
at the chip's peak and its traffic at the memory's bandwidth, then its messages, sent
round a ring. No program reaches a peak: the time is a lower bound, good for comparing
slices and for what bounds a step. (XLA's own `optimal_seconds` was negative for private
steps.)

[Williams09] Roofline: an insightful visual performance model, CACM 2009.
"""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from ldm_jax.config import loading, parsing
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort
from ldm_jax.models import platform
from ldm_jax.pipeline import count_operations, read_hlo, slices, step_programs
from ldm_jax.training import mesh as meshes
from ldm_jax.types import Config

UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
# On a CPU, which only counts and never runs the program: LLVM has nothing to optimise,
# and its emitters of fusions by MLIR take most of the time of compiling.
UNRUN = {'xla_backend_optimization_level': 0, 'xla_cpu_use_fusion_emitters': False}
EXCEEDED = re.compile(r'Used ([\d.]+)([KMGT]?)i?B? of ([\d.]+)([KMGT]?)')


def check(name: str) -> slices.Slice:
  """The slice of `doctor.topology`, if it can be compiled for here.

  Raises:
    ValueError: an unknown slice, or one of TPUs where libtpu is not installed.
  """
  wanted = slices.parse(name)
  if wanted.chip.kind == 'tpu' and importlib.util.find_spec('libtpu') is None:
    raise ValueError(
      f'doctor.topology={name!r} is compiled by libtpu, which is not installed. It '
      "needs no TPU: pip install 'ldm-jax[tpu]' (Linux), or pip install libtpu. GPUs "
      'such as h100x8 need nothing.'
    )
  return wanted


def examine(config: Config, cohorts: Mapping[str, Cohort]) -> dict[str, Any]:
  """Compiles the steps for `doctor.topology` in a process of its own.

  Args:
    config: of the run.
    cohorts: name -> Cohort, for the attributes and the numbers of patients and scans.

  Returns:
    {'topology', 'devices', 'chip', 'memory_bytes', 'compiled': whether for the devices
    themselves, 'notes', 'steps': {'plain': step, 'private': step}}, where a step is
    {'fits', 'bytes', 'seconds', 'bound', 'operations', 'traffic_bytes', 'sent_bytes',
    'collectives', 'programs'}, all of one device, or {'fault'}.

  Raises:
    ValueError: as `check`, or the process failed.
  """
  wanted = check(config.doctor.topology)
  request = {
    'topology': config.doctor.topology,
    'config': parsing.to_plain(config),
    'schema': next(iter(cohorts.values())).schema.to_config(),
    'patients': 0,
    'volumes': 0,
  }
  private = cohorts.get('private')
  if private is not None and config.adapt.privacy is not None:
    most = max(map(len, private.patients.values()))
    request['patients'] = len(private)
    request['volumes'] = most * config.adapt.augment.multiplicity
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_ENABLE_COMPILATION_CACHE': 'false',
    'TPU_SKIP_MDS_QUERY': '1',
    'TF_CPP_MIN_LOG_LEVEL': '3',
    'XLA_FLAGS': _flags(os.environ.get('XLA_FLAGS', ''), wanted),
  }
  done = subprocess.run(
    [sys.executable, '-m', 'ldm_jax.pipeline.ahead_of_time'],
    input=json.dumps(request),
    env=environment,
    capture_output=True,
    text=True,
  )
  if done.returncode:
    last = (done.stderr.strip().splitlines() or [f'status {done.returncode}'])[-1]
    raise ValueError(
      f'the steps could not be compiled for doctor.topology='
      f'{config.doctor.topology!r}: {last} Choose another topology, or look at the '
      'config without one.'
    )
  return json.loads(done.stdout.splitlines()[-1])


def _flags(flags, wanted):
  """XLA_FLAGS with as many virtual devices as the slice has GPUs."""
  count = '--xla_force_host_platform_device_count'
  flags = re.sub(rf'{count}=\d+', '', flags)
  number = wanted.num_devices if wanted.chip.kind == 'gpu' else 1
  return f'{flags} {count}={number}'.strip()


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
  """What `examine` returns, computed here: compiles for devices that are not there."""
  config = loading.from_plain(request['config'], 'the request')
  schema, wanted = (
    Schema.from_config(request['schema']),
    slices.parse(request['topology']),
  )
  config, notes = divisible(config, wanted.num_devices)
  mesh = meshes.make_mesh(-1, config.mesh.fsdp, devices(wanted))
  steps, chip = {}, wanted.chip
  with platform.tracing_for(chip.kind):
    for name in ('plain', *(('private',) if request['patients'] else ())):
      try:
        if name == 'plain':
          programs = step_programs.plain(config, schema, mesh)
        else:
          count, volumes = request['patients'], request['volumes']
          programs = step_programs.private(config, schema, count, volumes, mesh)
        is_for_device = chip.kind == 'tpu'
        found = [compiled(each, mesh.size, is_for_device) for each in programs]
        is_rounded = config.diffusion.model.dtype == 'bfloat16'
        steps[name] = summary(found, wanted, is_rounded)
      except ValueError as error:  # a config that training would refuse
        steps[name] = {'fault': str(error)}
  return {
    'topology': wanted.name,
    'devices': wanted.num_devices,
    'chip': wanted.model,
    'memory_bytes': chip.memory,
    'compiled': chip.kind == 'tpu',
    'notes': notes,
    'steps': steps,
  }


def devices(wanted: slices.Slice) -> list[jax.Device]:
  """Devices to compile for: those of a TPU topology, or virtual ones of the CPU.

  Raises:
    ValueError: libtpu does not know the topology.
  """
  if wanted.chip.kind == 'gpu':
    return jax.devices('cpu')[: wanted.num_devices]
  from jax.experimental import topologies

  try:
    found = topologies.get_topology_desc(
      wanted.topology,
      'tpu',
      chips_per_host_bounds=wanted.chips_a_host,
    )
  except Exception as error:
    raise ValueError(
      f'libtpu does not know the topology {wanted.topology} ({error}).'
    ) from error
  return found.devices


def divisible(config: Config, count: int) -> tuple[Config, list[str]]:
  """The config with batches that the devices divide, and a sentence on each change."""
  config, notes = config.copy_and_resolve_references(), []

  def rounded(section, key, name):
    size = section[key]
    section[key] = math.ceil(size / count) * count
    if section[key] != size:
      notes.append(
        f'{name}={size} does not divide over {count} devices: computed with '
        f'{section[key]}.'
      )

  rounded(config.diffusion, 'batch_size', 'diffusion.batch_size')
  privacy = config.adapt.privacy
  if privacy is not None:
    rounded(privacy, 'chunk_size', 'adapt.privacy.chunk_size')
    own = privacy.chunk_size // count
    privacy.microbatch = math.gcd(privacy.microbatch, own)
  return config, notes


def compiled(
  program: step_programs.Program, num_devices: int, is_for_device: bool
) -> dict[str, Any]:
  """Compiles a program and counts what one device does in it.

  Args:
    program: of `step_programs`.
    num_devices: of its mesh.
    is_for_device: whether they are those that will run it, and no virtual ones.

  Returns:
    {'name', 'times', 'operations', 'traffic_bytes', 'sent_bytes', 'collectives',
    'bytes': in memory while it runs, 'temporary_bytes'}.
  """
  traced = program.function.trace(*program.arguments)
  beside = step_programs.bytes_a_device(program.beside)
  figures: dict[str, Any] = {
    'name': program.name,
    'times': program.times,
    'operations': count_operations.operations(traced.jaxpr),
  }
  try:
    made = traced.lower().compile(None if is_for_device else UNRUN)
  except jax.errors.JaxRuntimeError as error:
    used = EXCEEDED.search(str(error))
    if 'RESOURCE_EXHAUSTED' not in str(error) or used is None:
      raise
    # libtpu refuses what does not fit, and says how much it would take.
    wanted = float(used[1]) * UNITS[used[2]]
    return {**figures, 'bytes': wanted + beside, 'refused': True}
  moved = read_hlo.traffic(made.as_text(), num_devices)
  memory = made.memory_analysis()
  own = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
  return {
    **figures,
    'traffic_bytes': moved.num_bytes,
    'sent_bytes': moved.sent,
    'collectives': moved.collectives,
    'bytes': own + beside,
    'temporary_bytes': memory.temp_size_in_bytes,
  }


def summary(
  programs: Iterable[Mapping[str, Any]], wanted: slices.Slice, is_rounded: bool
) -> dict[str, Any]:
  """A step of these programs on a slice; see `examine`.

  Args:
    programs: of `compiled`.
    wanted: the slice.
    is_rounded: whether products are of bfloat16.
  """
  programs, chip = list(programs), wanted.chip
  most = max(each['bytes'] for each in programs)
  if any('refused' in each for each in programs):
    return {'fits': False, 'bytes': most, 'programs': programs}
  peak = chip.bfloat16 if is_rounded else chip.float32
  parts = dict.fromkeys(('operations', 'memory', 'messages'), 0.0)
  total = read_hlo.Traffic()
  for each in programs:
    operations = each['operations'] / peak
    memory = each['traffic_bytes'] / chip.bandwidth
    slower = 'operations' if operations >= memory else 'memory'
    parts[slower] += each['times'] * max(operations, memory)
    parts['messages'] += each['times'] * each['sent_bytes'] / wanted.link
    moved = read_hlo.Traffic(each['traffic_bytes'], each['collectives'])
    total.add(moved, each['times'])
  return {
    'fits': most <= chip.memory,
    'bytes': most,
    'seconds': sum(parts.values()),
    'bound': max(parts, key=lambda part: parts[part]),
    'parts': parts,
    'operations': sum(each['times'] * each['operations'] for each in programs),
    'traffic_bytes': total.num_bytes,
    'sent_bytes': total.sent,
    'collectives': total.collectives,
    'programs': programs,
  }


def main() -> None:
  """Reads a request from stdin and prints the answer, both as JSON, in one line."""
  print(json.dumps(answer(json.load(sys.stdin))), flush=True)


if __name__ == '__main__':
  main()
