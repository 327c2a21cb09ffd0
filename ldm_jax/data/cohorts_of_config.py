"""The cohorts of a config: data.public, data.private, data.test, data.measuring.

Sections with the same layout, root and options are parts of one patient-wise split, so
that no patient can be in two of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ldm_jax.config.parsing import to_plain
from ldm_jax.data import layouts
from ldm_jax.data.cohorts import roles
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort, Source, check_disjoint
from ldm_jax.data.readers.dicom import container
from ldm_jax.types import Config

NAMES = ('public', 'private', 'test', 'measuring')
# data.<cohort>.part of a data set's own part: 'published:train'; 'published:train/x' is
# the share x of data.split of its patients.
PUBLISHED = 'published:'
# Layouts of real hearts: their documented population is that of the cardiac phantom,
# whose constants are published and no statistics of any data set.
HEARTS = ('acdc', 'mnms', 'mnms2', 'scd', 'scd_dicom', 'ukbb')


def cohorts(data: Config, disjoint: bool = True) -> dict[str, Cohort]:
  """Reads the cohorts of `config.data`.

  Args:
    data: `config.data`.
    disjoint: False allows a patient in two cohorts, for doctor to report.

  Returns:
    Dict of name -> Cohort for the sections that are not empty.

  Raises:
    ValueError: if all are empty, a layout is unknown, schemas differ, or a patient
      is in two cohorts.
  """
  wholes, found = {}, {}
  for name in NAMES:
    section = data[name]
    if not section.layout:
      continue
    source = json.dumps(
      [section.layout, section.root, to_plain(section.options)], sort_keys=True
    )
    if source not in wholes:
      wholes[source] = _read(name, data)
    whole = wholes[source]
    whole = _part(name, whole, data)
    if not len(whole):
      raise ValueError(_empty(name, len(wholes[source]), data))
    found[name] = dataclasses.replace(whole, name=name)
  if not found:
    raise ValueError(
      'The config names no data: data.public, data.private and data.test are all '
      'empty. Set data.public.layout (one of '
      f'{", ".join(sorted(layouts.LAYOUTS))}) and its root.'
    )
  if disjoint:
    check_disjoint(found)
  schemas = {cohort.schema for cohort in found.values()}
  if len(schemas) > 1:
    raise ValueError(
      'The cohorts have different attributes: '
      + '; '.join(f'{n}: {", ".join(c.schema.names)}' for n, c in found.items())
      + '. Set data.schema to the attributes they share.'
    )
  return found


def listing_digest(found: Mapping[str, Cohort]) -> str:
  """SHA-256 of the records of cohorts and of their files' size and time of change."""
  lines: list[Any] = []
  for name, cohort in found.items():
    lines.append([name, cohort.schema.to_config()])
    for record in cohort.records:
      lines.append(
        [record.id, record.patient, sorted(map(str, record.attributes.items()))]
      )
      lines.append(_stamp(record.source))
      lines.append(getattr(record.source, 'reason', ''))  # of a `FaultySource`
  return hashlib.sha256(json.dumps(lines, default=str).encode()).hexdigest()


def population(data: Config, num: int, seed: int) -> list[dict[str, Any]]:
  """Requests from the documented population of the private (or public) layout.

  Args:
    data: `config.data`.
    num: of requests.
    seed: chooses them.

  Returns:
    List of dicts; attributes that the population does not know are not in them.

  Raises:
    ValueError: if the layout documents no population.
  """
  section = data.private if data.private.layout else data.public
  of_hearts: Any = layouts.LAYOUTS['phantom_cardiac']
  if section.layout in HEARTS:
    return of_hearts.population(num, seed)
  layout: Any = layouts.LAYOUTS[section.layout]
  if not hasattr(layout, 'population'):
    raise ValueError(
      f"sample.requests is 'population', but the layout {section.layout!r} documents "
      "none. Use sample.requests='uniform', 'private_prior' or the path of a table of "
      'requests.'
    )
  return layout.population(num, seed, **_options(section))


def _read(name: str, data: Config) -> Cohort:
  section, schema = data[name], data.schema
  if section.layout not in layouts.LAYOUTS:
    raise ValueError(
      f'config.data.{name}.layout is {section.layout!r}; expected one of '
      f'{", ".join(sorted(layouts.LAYOUTS))}.'
    )
  options = _options(section)
  if schema:
    options['schema'] = Schema.from_config([dict(entry) for entry in schema])
  layout: Any = layouts.LAYOUTS[section.layout]
  try:
    return layout.read(section.root, **options)
  except ValueError as error:
    # That a folder is not there tells nothing of patients.
    is_there = section.root and pathlib.Path(section.root).expanduser().exists()
    if not (is_there and _names_confidential(name, data)):
      raise
    raise roles.ConfidentialError(
      f'The cohort data.{name} cannot be read by the layout {section.layout!r}; '
      'expected files and a table as docs/data.md describes. Correct what is listed, '
      'or the section of the config.',
      {name if name in roles.CONFIDENTIAL else 'private': [str(error)]},
    ) from None


def _names_confidential(name: str, data: Config) -> bool:
  """Whether what a cohort is read from lists patients who are not public.

  A column of one table may say who is public. A folder that is split by lot is a
  demonstration, which protects nobody.
  """
  private = data.private
  is_shared = private.layout and private.root == data[name].root
  return name in roles.CONFIDENTIAL or (
    bool(is_shared) and private.part.startswith(PUBLISHED)
  )


def _part(name: str, whole: Cohort, data: Config) -> Cohort:
  """The patients of a cohort that `data.<name>.part` chooses."""
  part = data[name].part
  if part.startswith(PUBLISHED):
    published, _, part = part.removeprefix(PUBLISHED).partition('/')
    whole = whole.published(published)
  if not part:
    return whole
  parts = whole.split(to_plain(data.split), data.split_seed)
  if part not in parts:
    raise ValueError(
      f'config.data.{name}.part is {part!r}, but data.split has the parts '
      f"{', '.join(parts)}. A part that the data set itself publishes is '{PUBLISHED}"
      "train'."
    )
  return parts[part]


def _empty(name: str, num_patients: int, data: Config) -> str:
  """The message on a cohort without a patient."""
  part, shares = data[name].part.rpartition('/')[2], to_plain(data.split)
  said = f'The cohort data.{name} holds no patient'
  if part not in shares or not num_patients:
    return f'{said}: data.{name}.root has none for it. Correct layout, root or part.'
  return (
    f'{said}: of the {num_patients} of data.{name}.root, none is in the part {part!r} '
    f'(share {shares[part]:g}). Whoever is in it follows from a hash of each id and '
    f'data.split_seed={data.split_seed}, so that no patient changes the part of '
    'another. Set another data.split_seed (with configs/folder.py also in its '
    'argument: split_seed=1), a larger share in data.split, or add patients.'
  )


def _options(section: Config) -> dict[str, Any]:
  return {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in to_plain(section.options).items()
  }


def _stamp(source: Source) -> list | str:
  files = getattr(source, 'files', None)
  if files is None:
    return source.fingerprint()
  return [container.stamp(file) or [file] for file in files]
