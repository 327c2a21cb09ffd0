"""The cohorts of a config: `data.public` and the others of NAMES.

Sections with the same layout, root and options are parts of one patient-wise split, so
that no patient can be in two of them. `data.public.also` adds further public cohorts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ldm_jax.config.parsing import name_flags, to_plain, with_flags
from ldm_jax.data import layout_options, layouts
from ldm_jax.data.cohorts import roles
from ldm_jax.data.cohorts.attributes import Schema, is_missing
from ldm_jax.data.cohorts.cohort import Cohort, Source, check_disjoint, oriented
from ldm_jax.data.cohorts.matching import spelt_alike
from ldm_jax.data.readers.dicom import container
from ldm_jax.types import Config

NAMES = ('public', 'private', 'test', 'measuring', 'public_test')
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
  data = with_flags(data)
  wholes, found, sources = dict[str, Cohort](), dict[str, Cohort](), dict[str, str]()
  failed: dict[str, ValueError] = {}
  for name in NAMES:
    section = data[name]
    if not section.layout:
      continue
    source = sources[name] = _origin(section)
    if source in failed:
      continue
    if source not in wholes:
      try:
        wholes[source] = _read(name, section, data, data.schema)
      except ValueError as error:  # the others are read too: all is told at once
        failed[source] = error
        continue
    whole = _part(name, section, wholes[source], data)
    if not len(whole):
      raise ValueError(_empty(name, len(wholes[source]), data))
    found[name] = dataclasses.replace(whole, name=name)
  if failed:
    raise roles.joined(list(failed.values()))
  for source, whole in wholes.items():
    parts = {name: found[name] for name in found if sources[name] == source}
    found |= _with_own_notes(whole, parts)
  if data.public.also:
    found['public'] = _with_others(found, data, disjoint)
  found = {
    name: dataclasses.replace(
      cohort, notes=(*cohort.notes, *spelt_alike(cohort.patients))
    )
    for name, cohort in found.items()
  }
  rule = data.get('preprocess', {}).get('orientation', 'nibabel')
  found = {name: oriented(cohort, rule) for name, cohort in found.items()}
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


def without_any_value(data: Config, found: Mapping[str, Cohort]) -> list[list[str]]:
  """Groups of cohorts, read from one source, of which no patient has an attribute.

  A phantom that stands in for public patients may have none of their attributes.
  """
  groups: dict[str, list[str]] = {}
  for name in found:
    if not data[name].layout.startswith('phantom_') and len(found[name].schema):
      groups.setdefault(_origin(data[name]), []).append(name)
  return [
    names
    for names in groups.values()
    if all(
      is_missing(record.attributes.get(a.name))
      for name in names
      for record in found[name].records
      for a in found[name].schema
    )
  ]


def explained(text: str, name: str, data: Config) -> str:
  """A message of a layout or reader with the flags that it advises.

  Args:
    text: such as 'holds 2 frames. Set options.frame'.
    name: of the cohort that was read.
    data: `config.data`. Cohorts of the same folder get the same flag.
  """
  same = [
    other
    for other in NAMES
    if (data[other].layout, data[other].root) == (data[name].layout, data[name].root)
  ]
  return name_flags(text, same, layout_options.known(data[name].layout))


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
  options = {
    key: layout_options.literal(value)
    for key, value in layout_options.of_section(section).items()
  }
  return layout.population(num, seed, **options)


def _origin(section: Config) -> str:
  """What a section is read from: sections of one origin are parts of one data set."""
  return json.dumps(
    [section.layout, section.root, to_plain(section.options)], sort_keys=True
  )


def _with_others(found: Mapping[str, Cohort], data: Config, disjoint: bool) -> Cohort:
  """The public cohort with the patients of `data.public.also`, in its schema.

  An id that two public cohorts use gets the number of its section before it.

  Raises:
    ValueError: there is no first public cohort, an entry is no section of a cohort or
      cannot be read, or one of its patients is in a cohort that is not public.
  """
  if 'public' not in found:
    raise ValueError(
      'data.public.also adds cohorts to data.public, whose layout is empty. Set '
      'data.public.layout to the first of them.'
    )
  public = found['public']
  records, notes = list(public.records), list(public.notes)
  seen = {text for r in records for text in (r.id, r.patient)}
  for number, entry in enumerate(data.public.also, 1):
    section, name = _section(number, entry), f'public.also[{number - 1}]'
    whole = _read(name, section, data, public.schema.to_config())
    other = dataclasses.replace(_part(name, section, whole, data), name=name)
    if not len(other):
      raise ValueError(f'data.{name} holds no patient; correct layout, root or part.')
    # Before ids are changed: the same person under one id is one person.
    if disjoint:
      check_disjoint({**{n: c for n, c in found.items() if n != 'public'}, name: other})
    taken = {r.patient for r in other.records if {r.id, r.patient} & seen}
    for record in other.records:
      if record.patient in taken:
        record = dataclasses.replace(
          record, id=f'{number}-{record.id}', patient=f'{number}-{record.patient}'
        )
      records.append(record)
      seen |= {record.id, record.patient}
    notes += other.notes
  return dataclasses.replace(public, records=tuple(records), notes=tuple(notes))


def _section(number: int, entry: Mapping[str, Any]) -> Config:
  """An entry of `data.public.also` as a section: `part` is all of it by default."""
  keys = {'layout': '', 'root': '', 'part': '', 'options': {}}
  if not isinstance(entry, Mapping | Config) or not entry.get('layout'):
    raise ValueError(
      f'Entry {number} of data.public.also is {entry!r}; expected a mapping such as '
      "{'layout': 'folder', 'root': FOLDER, 'options': {}}."
    )
  unknown = sorted(set(entry) - set(keys))
  if unknown:
    raise ValueError(
      f'Entry {number} of data.public.also has the keys {", ".join(unknown)}; its keys '
      f'are {", ".join(keys)}.'
    )
  section = Config({**keys, **entry})
  if section.layout.startswith('phantom_'):
    # What the phantom does not know of another data set's attributes is missing.
    section.options = Config({'unknown': 'missing', **section.options})
  return section


def _read(name: str, section: Config, data: Config, schema: Any) -> Cohort:
  if section.layout not in layouts.LAYOUTS:
    raise ValueError(
      f'config.data.{name}.layout is {section.layout!r}; expected one of '
      f'{", ".join(sorted(layouts.LAYOUTS))}.'
    )
  options = {
    key: layout_options.typed(name, section.layout, key, value)
    for key, value in layout_options.of_section(section).items()
  }
  if schema:
    options['schema'] = Schema.from_config([dict(entry) for entry in schema])
  layout: Any = layouts.LAYOUTS[section.layout]
  try:
    return layout.read(section.root, **options)
  except ValueError as error:
    told = explained(str(error), name, data) if name in NAMES else str(error)
    # That a folder is not there tells nothing of patients.
    is_there = section.root and pathlib.Path(section.root).expanduser().exists()
    if not (is_there and _names_confidential(name, section, data)):
      raise ValueError(told) from error
    raise roles.ConfidentialError(
      f'The cohort data.{name} cannot be read by the layout {section.layout!r}; '
      'expected files and a table as docs/data.md describes. Correct what is listed, '
      'or the section of the config.',
      {name if name in roles.CONFIDENTIAL else 'private': [told]},
    ) from None


def _with_own_notes(whole: Cohort, parts: Mapping[str, Cohort]) -> dict[str, Cohort]:
  """Parts of one data set, each with the notes about its own patients.

  A note about nobody in particular (a row without a scan, say) is told once: it may
  name patients who are not public, so a confidential part takes it.
  """
  owners: dict[str, str] = {}
  for record in whole.records:
    file = os.path.basename(getattr(record.source, 'image', ''))
    for text in (record.patient, record.id, file, file.split('.nii')[0]):
      owners.setdefault(text, record.patient)
  general = next((n for n in parts if n in roles.CONFIDENTIAL), next(iter(parts)))
  found: dict[str, list[str]] = {name: [] for name in parts}
  patients = {name: set(part.patients) for name, part in parts.items()}
  for note in dict.fromkeys(whole.notes):
    owner = owners.get(note.split(': ')[0].split(', ')[0])
    if owner is None:
      found[general].append(note)
    for name in parts:
      if owner in patients[name]:
        found[name].append(note)
  return {
    name: dataclasses.replace(part, notes=tuple(found[name]))
    for name, part in parts.items()
  }


def _names_confidential(name: str, section: Config, data: Config) -> bool:
  """Whether what a cohort is read from lists patients who are not public.

  A column of one table may say who is public. A folder that is split by lot is a
  demonstration, which protects nobody.
  """
  private = data.private
  is_shared = private.layout and private.root == section.root
  return name in roles.CONFIDENTIAL or (
    bool(is_shared) and private.part.startswith(PUBLISHED)
  )


def _part(name: str, section: Config, whole: Cohort, data: Config) -> Cohort:
  """The patients of a cohort that `data.<name>.part` chooses."""
  part = section.part
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


def _stamp(source: Source) -> list | str:
  files = getattr(source, 'files', None)
  if files is None:
    return source.fingerprint()
  return [container.stamp(file) or [file] for file in files]
