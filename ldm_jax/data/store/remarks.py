"""What had to be decided to read the scans of a cohort, as lines with file names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

# Scans that fill less of their box are named; `preprocess.least_filled` refuses some.
LITTLE = 0.1
NUM_NAMED = 20
# Kind of a remark -> what to do about it.
ADVICE = {
  'orientation': (
    'they may be mirrored against the others: look at them, repair their headers, or '
    'set --config.data.preprocess.orientation to strict (refuses them), trust_sform or '
    'trust_qform'
  ),
  'unit': 'correct the unit in their headers (xyzt_units) if that is wrong',
  'padding': 'nothing to do, unless these voxels are measurements',
  'positions': 'export the positions with more digits if the spacing matters',
}


class Scan(NamedTuple):
  """A scan that was read.

  Attributes:
    name: of its file, or its id.
    patient: whose it is.
    remarks: (kind, text) as of `grid.Remark`.
    filled: share of the box that it fills.
    labels: label value -> voxels; {} without labels.
  """

  name: str
  patient: str
  remarks: Sequence[Sequence[str]]
  filled: float = 1.0
  labels: Mapping[str, int] = {}


def lines(scans: Collection[Scan], limit: int = NUM_NAMED) -> list[str]:
  """One line for each kind of remark: how many scans, which, what, and what to do.

  Args:
    scans: of a cohort.
    limit: of names in a line.
  """
  found = []
  for kind, advice in ADVICE.items():
    texts = {s.name: r[1] for s in scans for r in s.remarks if r[0] == kind}
    if texts:
      usual = next(iter(texts.values()))
      each = usual if len(texts) == 1 else f'for example {usual}'
      found.append(
        f'{kind} of {len(texts)} of {len(scans)} scans ({_named(texts, limit)}): '
        f'{each}; {advice}'
      )
  small = {s.name: s.filled for s in scans if s.filled < LITTLE}
  if small:
    found.append(
      f'{len(small)} of {len(scans)} scans fill less than {LITTLE:.0%} of the box '
      f'({_named(small, limit)}), the least {100 * min(small.values()):.2g} %: empty '
      'voxels are most of what is learned. --stages=doctor proposes a grid that fits'
    )
  return found


def unlisted_labels(
  scans: Iterable[Scan], classes: Sequence[int], limit: int = NUM_NAMED
) -> list[str]:
  """One line for each label value that no class lists, or on labels without any.

  Args:
    scans: of a cohort.
    classes: `config.evaluate.labels`; every other value counts as background.
    limit: of patients in a line.
  """
  scans = [scan for scan in scans if scan.labels]
  if scans and not any(int(text) for scan in scans for text in scan.labels):
    return [
      f'the labels of all {len(scans)} scans hold background (0) alone: nothing can be '
      'learned or measured from them. Name the right label files, or leave the labels '
      'out'
    ]
  voxels: dict[int, int] = {}
  patients: dict[int, dict[str, None]] = {}
  for scan in scans:
    for text, count in scan.labels.items():
      value = int(text)
      if value and value not in classes:
        voxels[value] = voxels.get(value, 0) + count
        patients.setdefault(value, {})[scan.patient] = None
  listed = tuple(classes)
  return [
    f'label value {value} is no class of evaluate.labels={listed}: {voxels[value]} '
    f'voxels of {len(patients[value])} patients ({_named(patients[value], limit)}) '
    'count as background. Correct the labels, or add the class: '
    f'--config.evaluate.labels={str((*listed, value)).replace(" ", "")}'
    for value in sorted(voxels)
  ]


def of_index(index: Mapping[str, Any], files: Mapping[str, str]) -> list[Scan]:
  """The scans of a store's index; `files` is the name of an entry's file by its id."""
  return [
    Scan(
      files.get(entry['id']) or entry['id'],
      entry['patient'],
      entry['remarks'],
      entry['filled'],
      entry['labels'],
    )
    for entry in index['entries']
  ]


def _named(names: Iterable[str], limit: int) -> str:
  names = list(names)
  more = f' and {len(names) - limit} more' if len(names) > limit else ''
  return ', '.join(name[:120] for name in names[:limit]) + more
