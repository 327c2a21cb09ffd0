"""Attributes of a cohort: their values, the sizes of groups, patients without any."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

import numpy as np

from ldm_jax.data.cohorts import matching
from ldm_jax.data.cohorts.attributes import Attribute, is_missing
from ldm_jax.data.cohorts.cohort import Cohort


def groups(cohort: Cohort) -> dict[str, dict[str, int]]:
  """Patients per category, phase and visit, where there is more than one of these."""
  found: dict[str, dict[str, int]] = {}
  fields = {a.name: a for a in cohort.schema if a.kind == 'categorical'}
  for name, attribute in fields.items():
    members: dict[str, set] = {str(c): set() for c in attribute.categories}
    for record in cohort.records:
      value = record.attributes.get(name)
      if not is_missing(value):
        with contextlib.suppress(ValueError):  # an unknown one is a group of its own
          value = attribute.decode(attribute.encode(value))
        members.setdefault(str(value), set()).add(record.patient)
    found[name] = {value: len(patients) for value, patients in members.items()}
  for name in ('phase', 'visit'):
    members = {}
    for record in cohort.records:
      members.setdefault(getattr(record, name), set()).add(record.patient)
    if 1 < len(members) <= 20:
      found[name] = {value: len(patients) for value, patients in members.items()}
  return found


def of_attribute(cohort: Cohort, attribute: Attribute) -> dict[str, Any]:
  """A summary of an attribute's values, and how many are missing or out of range."""
  values = [record.attributes.get(attribute.name) for record in cohort.records]
  known = [value for value in values if not is_missing(value)]
  found: dict[str, Any] = {'missing': len(values) - len(known), 'out_of_range': 0}
  if attribute.kind == 'categorical':
    counted = Counter(str(value) for value in known)
    shown = ', '.join(f'{value} ({count})' for value, count in counted.most_common(6))
    return {**found, 'summary': shown or 'no value'}
  numbers = np.asarray(known, np.float64)
  limits = np.array([attribute.low, attribute.high], np.float64)
  outside = (numbers < limits[0]) | (numbers > limits[1])
  found['out_of_range'] = int(outside.sum())
  shown = 'no value'
  if numbers.size:
    low, middle, high = np.percentile(numbers, (0, 50, 100))
    # Rounded: enough to see wrong units; exact extremes are values of single patients.
    low, middle, high = (float(f'{value:.2g}') for value in (low, middle, high))
    shown = (
      f'about {low:g} .. {high:g} {attribute.unit}, median {middle:g} '
      f'(declared {attribute.low:g} .. {attribute.high:g})'
    )
  return {**found, 'summary': shown}


def patients_without_values(cohort: Cohort) -> list[str]:
  """Messages about ids without a partner and patients without any attribute."""
  return [*unmatched(cohort), *without_values(cohort)]


def unmatched(cohort: Cohort) -> list[str]:
  """`Matching.headline` of the cohort, if table and scans do not match."""
  headline = '' if cohort.matching is None else cohort.matching.headline
  return [headline] if headline else []


def without_values(cohort: Cohort) -> list[str]:
  """One message about the patients without any attribute, if they are many."""
  known = {
    record.patient
    for record in cohort.records
    if any(not is_missing(record.attributes.get(name)) for name in cohort.schema.names)
  }
  without = [patient for patient in cohort.patients if patient not in known]
  if not len(cohort.schema) or len(without) < max(1, matching.NOTABLE * len(cohort)):
    return []
  shown = ', '.join(without[: matching.NUM_EXAMPLES])
  return [
    f'{len(without)} of {len(cohort)} patients have no value of any attribute (such as '
    f'{shown}): do the ids and columns of the table agree with data.schema?'
  ]
