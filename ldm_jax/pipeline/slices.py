"""Slices of accelerators that a run may be planned for: 'v5p-128', 'v5e:4x4', 'h100x8'.

A TPU slice is named as Google Cloud does, by cores (v4, v5p) or chips (v5e, v6e), or by
its topology; GPUs by their number, eight of them a host.

[Cloud] https://cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e: a chip's peak, memory
  and interconnect. Its bandwidth is given in both directions together; half is used.
[Nvidia] Data sheets of A100 80GB SXM, L40S, H100 SXM, H200 SXM and HGX B200: dense
  products without sparsity, NVLink (L40S: PCIe 4.0 x16) in one direction, and the
  network interface a GPU has in a DGX of its generation.
"""

import dataclasses
import math
import re

GIGA, TERA = 1e9, 1e12
GPUS_A_HOST = 8


@dataclasses.dataclass(frozen=True)
class Chip:
  """An accelerator, one device of jax.

  Attributes:
    kind: 'tpu' or 'gpu'.
    bfloat16: products of bfloat16, floating-point operations a second.
    float32: those of float32 with jax's default precision: rounded to bfloat16 on a
      TPU, to TF32 on a GPU.
    memory: bytes.
    bandwidth: of the memory, bytes a second.
    link: bytes a second that leave a chip for the others of its host or slice.
    network: bytes a second that leave a chip for other hosts of GPUs.
    cores: by which Google Cloud counts, of a chip.
    hosts: chips of a host, along each axis of the topology.
  """

  kind: str
  bfloat16: float
  float32: float
  memory: float
  bandwidth: float
  link: float
  network: float = math.inf
  cores: int = 1
  hosts: tuple[int, ...] = ()


def _tpu(peak, memory, bandwidth, link, cores, hosts):
  return Chip(
    'tpu',
    peak * TERA,
    peak * TERA,
    memory * 2**30,
    bandwidth * GIGA,
    link * GIGA,
    cores=cores,
    hosts=hosts,
  )


def _gpu(bfloat16, tf32, memory, bandwidth, link, network):
  return Chip(
    'gpu',
    bfloat16 * TERA,
    tf32 * TERA,
    memory * GIGA,
    bandwidth * GIGA,
    link * GIGA,
    network * GIGA,
  )


CHIPS = {
  'v4': _tpu(275, 32, 1228, 150, 2, (2, 2, 1)),
  'v5e': _tpu(197, 16, 819, 200, 1, (2, 2)),
  'v5p': _tpu(459, 95, 2765, 600, 2, (2, 2, 1)),
  'v6e': _tpu(918, 32, 1638, 400, 1, (2, 2)),
  'a100': _gpu(312, 156, 80, 2039, 300, 25),
  'l40s': _gpu(362, 183, 48, 864, 32, 25),
  'h100': _gpu(989, 494, 80, 3350, 450, 50),
  'h200': _gpu(989, 494, 141, 4800, 450, 50),
  'b200': _gpu(2250, 1100, 180, 8000, 900, 50),
}
# Other names that Google Cloud has for them.
ALIASES = {'v5litepod': 'v5e'}
# Chips of a slice -> its topology, where it is named by a number.
FLAT: dict[int, tuple[int, ...]] = {
  1: (1, 1),
  4: (2, 2),
  8: (2, 4),
  16: (4, 4),
  32: (4, 8),
  64: (8, 8),
  128: (8, 16),
  256: (16, 16),
}
CUBIC: dict[int, tuple[int, ...]] = {
  4: (2, 2, 1),
  8: (2, 2, 2),
  16: (2, 2, 4),
  32: (2, 4, 4),
  64: (4, 4, 4),
  128: (4, 4, 8),
  256: (4, 8, 8),
  512: (8, 8, 8),
  1024: (8, 8, 16),
  2048: (8, 16, 16),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips that run one program together.

  Attributes:
    name: as the user wrote it.
    model: key of CHIPS.
    shape: of the TPU topology; (number,) of GPUs.
  """

  name: str
  model: str
  shape: tuple[int, ...]

  @property
  def chip(self) -> Chip:
    """What each of its devices is."""
    return CHIPS[self.model]

  @property
  def num_devices(self) -> int:
    """Devices of jax: chips."""
    return math.prod(self.shape)

  @property
  def topology(self) -> str:
    """As libtpu names it: 'v5p:4x4x4'."""
    return f'{self.model}:{"x".join(map(str, self.shape))}'

  @property
  def chips_a_host(self) -> tuple[int, int, int]:
    """Chips of one host along each axis of a TPU topology."""
    shape = (*self.shape, 1, 1)[:3]
    hosts = (*self.chip.hosts, 1, 1)[:3]
    first, second, third = map(min, zip(shape, hosts, strict=True))
    return first, second, third

  @property
  def link(self) -> float:
    """Bytes a second that a device sends in a collective over all of them."""
    is_one_host = self.chip.kind == 'tpu' or self.num_devices <= GPUS_A_HOST
    return self.chip.link if is_one_host else min(self.chip.link, self.chip.network)


def parse(name: str) -> Slice:
  """'v5p-128', 'v5e:4x4' or 'h100x8' -> the slice.

  Raises:
    ValueError: a name of another form, an unknown chip or an impossible number.
  """
  words = re.fullmatch(r'([a-z0-9]+?)(?:-(\d+)|:(\d+(?:x\d+){1,2})|x(\d+))', name)
  if words is None:
    raise ValueError(f'doctor.topology is {name!r}; {_expected()}')
  model = ALIASES.get(words[1], words[1])
  chip = CHIPS.get(model)
  is_tpu = chip is not None and chip.kind == 'tpu'
  if chip is None or is_tpu == bool(words[4]):
    raise ValueError(f'doctor.topology is {name!r}; {_expected()}')
  shape: tuple[int, ...]
  if words[4]:
    shape = (int(words[4]),)
  elif words[3]:
    shape = tuple(map(int, words[3].split('x')))
    if len(shape) != len(chip.hosts):
      raise ValueError(
        f'doctor.topology is {name!r}; expected {len(chip.hosts)} numbers for {model}, '
        f'such as {model}:{"x".join("4" * len(chip.hosts))}.'
      )
  else:
    known = CUBIC if len(chip.hosts) == 3 else FLAT
    shape = known.get(int(words[2]) // chip.cores, ())
    if math.prod(shape) * chip.cores != int(words[2]) or not shape:
      numbers = ', '.join(f'{model}-{count * chip.cores}' for count in known)
      raise ValueError(
        f'doctor.topology is {name!r}; expected one of {numbers}, or a topology such '
        f'as {model}:{"x".join("4" * len(chip.hosts))}.'
      )
  if not math.prod(shape):
    raise ValueError(f'doctor.topology is {name!r}, which has no device; {_expected()}')
  return Slice(name, model, shape)


def _expected():
  tpus = ', '.join(name for name, chip in CHIPS.items() if chip.kind == 'tpu')
  gpus = ', '.join(name for name, chip in CHIPS.items() if chip.kind == 'gpu')
  return (
    f'expected TPUs ({tpus}) such as v5p-128 or v5e:4x4, or a number of GPUs ({gpus}) '
    'such as h100x8.'
  )
