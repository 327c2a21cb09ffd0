"""What a compiled program moves: bytes of memory and messages, from its HLO text.

XLA's own analysis takes a loop's body once; here it counts as often as it runs
(`known_trip_count`). A fusion reads its inputs once and writes its result once. Where
it takes a slice of an input only, as the body of a loop does of stacked arrays, the
slice counts.
"""

import dataclasses
import math
import re
from collections.abc import Iterable

COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
# They move nothing by themselves, or what they move is counted where it is begun.
FREE = {
  *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all'),
  *('partition-id', 'replica-id', 'opt-barrier', 'add-dependency', 'domain'),
}
SLICES = {'dynamic-slice', 'slice', 'gather'}
ARRAY = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\]')
NAME = re.compile(r'%([\w.\-]+)')
TRIPS = re.compile(r'known_trip_count[^\d]*(\d+)')


@dataclasses.dataclass
class Traffic:
  """What one device moves in a program.

  Attributes:
    num_bytes: read from its memory and written to it.
    collectives: kind -> {'count', 'bytes': of the arrays, 'sent': bytes that leave the
      device, in a ring}.
  """

  num_bytes: float = 0.0
  collectives: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

  def add(self, other: 'Traffic', times: float = 1) -> None:
    """Adds what another program moves that runs this often."""
    self.num_bytes += times * other.num_bytes
    for kind, figures in other.collectives.items():
      mine = self.collectives.setdefault(kind, {'count': 0, 'bytes': 0, 'sent': 0})
      for name, value in figures.items():
        mine[name] += times * value

  @property
  def sent(self) -> float:
    """Bytes that leave the device in all collectives."""
    return sum(figures['sent'] for figures in self.collectives.values())


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation."""

  name: str
  shape: str
  kind: str
  inside: str  # of its parentheses
  rest: str  # after them
  is_root: bool

  @property
  def size(self) -> float:
    """Bytes of its result."""
    return num_bytes(self.shape)

  @property
  def operands(self) -> list[str]:
    """Names of what it takes."""
    return NAME.findall(self.inside)

  def called(self, attribute: str) -> list[str]:
    """Names of the computations that an attribute such as `body` names."""
    found = re.search(rf'\b{attribute}=(\{{[^}}]*\}}|%?[\w.\-]+)', self.rest)
    return re.findall(r'[\w.\-]+', found[1]) if found else []


def traffic(text: str, num_devices: int) -> Traffic:
  """What one device moves in a program.

  Args:
    text: of `jax.stages.Compiled.as_text()`.
    num_devices: that run it.

  Raises:
    ValueError: the text is not that of a compiled program.
  """
  computations, entry = _computations(text.splitlines())
  if entry is None:
    raise ValueError(
      'expected the text of a compiled program with an ENTRY computation, got '
      f'{text[:60]!r}; pass compiled.as_text().'
    )
  return _of_computation(computations, entry, num_devices)


def num_bytes(shape: str) -> float:
  """Bytes of 'f32[8,16]{1,0}' or of a tuple of such arrays."""
  total = 0.0
  for kind, sizes in ARRAY.findall(shape):
    count = 1
    for size in filter(None, sizes.split(',')):
      count *= int(size)
    total += count * _width(kind)
  return total


def _width(kind):
  if kind == 'pred':
    return 1.0
  bits = re.match(r'[a-z]+(\d+)', kind)
  return int(bits[1]) / 8 if bits else 0.0


def _computations(lines: Iterable[str]):
  """({name: {instruction: Instruction}}, name of the entry)."""
  found: dict[str, dict[str, Instruction]] = {}
  current, entry = None, None
  for line in lines:
    if current is None:
      head = re.match(r'(ENTRY )?%?([\w.\-]+) .*\{\s*$', line)
      if head and not line.startswith('HloModule'):
        current = found[head[2]] = {}
        entry = head[2] if head[1] else entry
    elif line.startswith('}'):
      current = None
    else:
      instruction = _instruction(line)
      if instruction is not None:
        current[instruction.name] = instruction
  return found, entry


def _instruction(line):
  head = re.match(r'\s*(ROOT )?%?([\w.\-]+) = ', line)
  if head is None:
    return None
  rest = line[head.end() :]
  end = _closing(rest) + 1 if rest.startswith('(') else rest.find(' ')
  shape, rest = rest[:end], rest[end:].lstrip()
  kind, _, _ = rest.partition('(')
  inside = _closing(rest[len(kind) :]) + len(kind)
  words = rest[len(kind) + 1 : inside]
  return Instruction(head[2], shape, kind, words, rest[inside + 1 :], bool(head[1]))


def _closing(text):
  """Position of the parenthesis that closes the first one."""
  depth = 0
  for position, character in enumerate(text):
    depth += (character == '(') - (character == ')')
    if character == ')' and not depth:
      return position
  return len(text)


def _of_computation(computations, name, num_devices):
  total, instructions = Traffic(), computations.get(name, {})
  for each in instructions.values():
    base = each.kind.removesuffix('-start')
    if each.kind == 'while':
      trips = TRIPS.search(each.rest)
      for called in (*each.called('body'), *each.called('condition')):
        inner = _of_computation(computations, called, num_devices)
        total.add(inner, int(trips[1]) if trips else 1)
    elif each.kind == 'conditional':
      names = each.called('branch_computations')
      names = names or each.called('true_computation') + each.called(
        'false_computation'
      )
      inner = [_of_computation(computations, called, num_devices) for called in names]
      total.add(max(inner, key=lambda found: found.num_bytes, default=Traffic()))
    elif each.kind == 'call':
      for called in each.called('to_apply'):
        total.add(_of_computation(computations, called, num_devices))
    elif each.kind == 'async-start':
      for called in each.called('calls'):
        total.add(_of_computation(computations, called, num_devices))
    elif base in COLLECTIVES:
      total.add(_message(base, each, instructions, num_devices))
    elif each.kind not in FREE and not each.kind.endswith(('-done', '-update')):
      total.num_bytes += _moved(each, instructions, computations)
  return total


def _message(kind, each, instructions, num_devices):
  size = sum(instructions[name].size for name in each.operands if name in instructions)
  group = _group_size(each.rest, num_devices)
  sent = {
    'all-reduce': 2 * (group - 1) / group,
    'all-gather': group - 1,
    'reduce-scatter': (group - 1) / group,
    'all-to-all': (group - 1) / group,
    'collective-permute': 1,
  }[kind]
  whole = size * group if kind == 'all-gather' else size
  moved = 2 * whole  # read and written
  if group == 1 and kind != 'collective-permute':
    return Traffic(moved)
  return Traffic(moved, {kind: {'count': 1, 'bytes': whole, 'sent': sent * size}})


def _group_size(rest, num_devices):
  found = re.search(r'replica_groups=\[(\d+),(\d+)\]', rest)
  if found:
    return int(found[2])
  found = re.search(r'replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}', rest)
  if found:  # mesh['a'=2,'b'=4], ... {'b'}, or a part of an axis: {'b':(1)2}
    sizes = dict(re.findall(r"'([^']*)'=(\d+)", found[1]))
    named = re.findall(r"'([^']*)'(?::\(\d+\)(\d+))?", found[2])
    return math.prod(int(part or sizes[axis]) for axis, part in named)
  found = re.search(r'replica_groups=\{\{([\d,]*)\}', rest)
  return len(found[1].split(',')) if found else num_devices


def _moved(each, instructions, computations):
  """Bytes that an instruction reads and writes."""
  sizes = [instructions[n].size if n in instructions else 0.0 for n in each.operands]
  if each.kind in SLICES:
    return 2 * each.size
  if each.kind == 'dynamic-update-slice':
    return 2 * sizes[1]
  if each.kind != 'fusion':
    return sum(sizes) + each.size
  inner = next((computations[n] for n in each.called('calls') if n in computations), {})
  written, updated = _written(each, inner)
  for parameter in inner.values():
    if parameter.kind != 'parameter':
      continue
    place = int(parameter.inside)
    if place < len(sizes):
      sizes[place] = _read(parameter, inner, updated, sizes[place])
  return sum(sizes) + written


def _written(each, inner):
  """(bytes that a fusion writes, names of the arrays that it updates in place)."""
  root = next((found for found in inner.values() if found.is_root), None)
  while root is not None and root.kind in ('bitcast', 'copy') and root.operands:
    root = inner.get(root.operands[0])
  if root is not None and root.kind == 'dynamic-update-slice':
    update = inner.get(root.operands[1])
    return (update.size if update else each.size), {root.operands[0]}
  return each.size, set()


def _read(parameter, inner, updated, size):
  """Bytes of a fusion's input that it reads."""
  users = [found for found in inner.values() if parameter.name in found.operands]
  if not users:
    return 0.0
  taken = 0.0
  for user in users:
    is_source = user.operands[0] == parameter.name
    if user.kind in SLICES and is_source:
      taken += user.size
    elif user.kind == 'dynamic-update-slice' and parameter.name in updated:
      taken += 0.0
    else:
      return size
  return min(taken, size)
