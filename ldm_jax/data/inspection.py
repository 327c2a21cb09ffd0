"""A first look at a cohort before anything is trained: what is there, what is odd.

Reads every scan once, on its own grid; nothing is written. The findings describe
patients, so those of a private cohort are internal.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import nibabel as nib
import numpy as np

from ldm_jax.data.attributes import is_missing
from ldm_jax.data.cohort import Cohort, Record
from ldm_jax.data.preprocess import Spec
from ldm_jax.data.volume import Volume


def inspect(
  cohort: Cohort, max_records: int | None = None, spec: Spec | None = None
) -> dict[str, Any]:
  """Collects shapes, spacings, orientations, intensities, attributes and faults.

  Args:
    cohort: what to look at.
    max_records: look at the first so many scans only; attributes are always all seen.
    spec: preprocessing that is planned; tells what it would cut off.

  Returns:
    JSON-able dict: 'counts', 'shapes', 'spacings_mm', 'orientations', 'intensities',
    'attributes', and the lists of messages 'unreadable', 'duplicates',
    'out_of_range', 'cut_off', 'notes'.
  """
  records = cohort.records[:max_records]
  shapes, spacings, orientations = Counter(), Counter(), Counter()
  lows, highs, unreadable, duplicates, cut_off, seen = [], [], [], [], [], {}
  num_labelled = 0
  for record in records:
    try:
      fingerprint = record.source.fingerprint()
      scan, label = record.source.read()
    except ValueError as error:
      unreadable.append(f'{record.id}: {error}')
      continue
    if fingerprint in seen:
      duplicates.append(f'{record.id}: the same file as {seen[fingerprint]}')
    seen.setdefault(fingerprint, record.id)
    shapes['x'.join(map(str, scan.array.shape))] += 1
    spacings[' x '.join(f'{mm:.2f}' for mm in scan.spacing)] += 1
    orientations[''.join(nib.aff2axcodes(scan.source.affine))] += 1
    lows.append(float(scan.array.min()))
    highs.append(float(scan.array.max()))
    num_labelled += label is not None
    cut_off += [] if spec is None else _cut_off(record, scan, spec)
  return {
    'counts': {
      'name': cohort.name,
      'patients': len(cohort),
      'records': len(cohort.records),
      'inspected': len(records),
      'with_labels': num_labelled,
    },
    'shapes': dict(shapes.most_common()),
    'spacings_mm': dict(spacings.most_common()),
    'orientations': dict(orientations.most_common()),
    'intensities': {'lowest': _range(lows), 'highest': _range(highs)},
    'attributes': {a.name: _attribute(cohort, a) for a in cohort.schema},
    'unreadable': unreadable,
    'duplicates': duplicates,
    'out_of_range': [
      f'{record.id}: {message}'
      for record in cohort.records
      for message in cohort.schema.out_of_range(record.attributes)
    ],
    'cut_off': cut_off,
    'notes': list(cohort.notes),
  }


def text(findings: dict[str, Any], max_messages: int = 5) -> str:
  """Renders the findings of `inspect` as lines of text."""
  counts = findings['counts']
  lines = [
    f'Cohort {counts["name"]}: {counts["patients"]} patients, {counts["records"]} '
    f'scans ({counts["inspected"]} inspected, {counts["with_labels"]} with labels)'
  ]
  for title, key in (
    ('shapes (d,h,w)', 'shapes'),
    ('spacing mm (d,h,w)', 'spacings_mm'),
    ('file orientation', 'orientations'),
  ):
    common = list(findings[key].items())
    shown = ', '.join(f'{value} ({count})' for value, count in common[:4])
    more = f', and {len(common) - 4} more' if len(common) > 4 else ''
    lines.append(f'  {title:20s} {shown}{more}')
  for title in ('lowest', 'highest'):
    limits = findings['intensities'][title]
    if limits:
      lines.append(f'  {title + " intensity":20s} {limits[0]:g} .. {limits[1]:g}')
  for name, found in findings['attributes'].items():
    lines.append(
      f'  {name:20s} {found["summary"]}, missing {found["missing"]}, '
      f'out of range {found["out_of_range"]}'
    )
  for key in ('unreadable', 'duplicates', 'out_of_range', 'cut_off', 'notes'):
    messages = findings[key]
    if messages:
      lines.append(f'  {key.replace("_", " ")}: {len(messages)}')
      lines += [f'    - {message}' for message in messages[:max_messages]]
      if len(messages) > max_messages:
        lines.append(f'    - and {len(messages) - max_messages} more')
  return '\n'.join(lines)


def _attribute(cohort: Cohort, attribute) -> dict[str, Any]:
  values = [record.attributes.get(attribute.name) for record in cohort.records]
  known = [value for value in values if not is_missing(value)]
  found = {'missing': len(values) - len(known), 'out_of_range': 0}
  if attribute.kind == 'categorical':
    counted = Counter(str(value) for value in known)
    shown = ', '.join(f'{value} ({count})' for value, count in counted.most_common(6))
    return {**found, 'summary': shown or 'no value'}
  numbers = np.asarray(known, np.float64)
  outside = (numbers < attribute.low) | (numbers > attribute.high)
  found['out_of_range'] = int(outside.sum())
  shown = 'no value'
  if numbers.size:
    shown = (
      f'{numbers.min():g} .. {numbers.max():g} {attribute.unit} '
      f'(declared {attribute.low:g} .. {attribute.high:g})'
    )
  return {**found, 'summary': shown}


def _cut_off(record: Record, scan: Volume, spec: Spec) -> list[str]:
  """Slices that the planned box would lose: a stack deeper than the model."""
  kept = spec.spacing_mm[0] or scan.spacing[0]
  needed = int(np.ceil(scan.array.shape[0] * scan.spacing[0] / kept - 1e-6))
  if needed <= spec.shape[0]:
    return []
  return [
    f'{record.id}: {needed} slices, preprocess.shape keeps the middle {spec.shape[0]}'
  ]


def _range(values: list[float]) -> list[float]:
  return [min(values), max(values)] if values else []
