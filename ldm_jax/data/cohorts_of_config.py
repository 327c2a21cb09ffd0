"""The cohorts of a config: `data.public` and the others of NAMES.

Sections with the same layout, root and options are parts of one patient-wise split, so
that no patient can be in two of them.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import inspect
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ldm_jax.config.parsing import name_flags, to_plain, with_flags
from ldm_jax.data import layouts
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
        wholes[source] = _read(name, data)
      except ValueError as error:  # the others are read too: all is told at once
        failed[source] = error
        continue
    whole = _part(name, wholes[source], data)
    if not len(whole):
      raise ValueError(_empty(name, len(wholes[source]), data))
    found[name] = dataclasses.replace(whole, name=name)
  if failed:
    raise roles.joined(list(failed.values()))
  for source, whole in wholes.items():
    parts = {name: found[name] for name in found if sources[name] == source}
    found |= _with_own_notes(whole, parts)
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
  return name_flags(text, same, _known_options(data[name].layout))


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
  options = {key: _literal(value) for key, value in _options(section).items()}
  return layout.population(num, seed, **options)


def _origin(section: Config) -> str:
  """What a section is read from: sections of one origin are parts of one data set."""
  return json.dumps(
    [section.layout, section.root, to_plain(section.options)], sort_keys=True
  )


def _read(name: str, data: Config) -> Cohort:
  section, schema = data[name], data.schema
  if section.layout not in layouts.LAYOUTS:
    raise ValueError(
      f'config.data.{name}.layout is {section.layout!r}; expected one of '
      f'{", ".join(sorted(layouts.LAYOUTS))}.'
    )
  options = {
    key: _typed(name, section.layout, key, value)
    for key, value in _options(section).items()
  }
  if schema:
    options['schema'] = Schema.from_config([dict(entry) for entry in schema])
  layout: Any = layouts.LAYOUTS[section.layout]
  try:
    return layout.read(section.root, **options)
  except ValueError as error:
    told = explained(str(error), name, data)
    # That a folder is not there tells nothing of patients.
    is_there = section.root and pathlib.Path(section.root).expanduser().exists()
    if not (is_there and _names_confidential(name, data)):
      raise ValueError(told) from error
    raise roles.ConfidentialError(
      f'The cohort data.{name} cannot be read by the layout {section.layout!r}; '
      'expected files and a table as docs/data.md describes. Correct what is listed, '
      'or the section of the config.',
      {name if name in roles.CONFIDENTIAL else 'private': [told]},
    ) from None


def _known_options(layout: str) -> list[str] | None:
  """Options of a layout; None where any may be one (phantoms check their own)."""
  parameters = inspect.signature(layouts.LAYOUTS[layout].read).parameters
  if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
    return None
  return [key for key in parameters if key not in ('root', 'schema')]


def _typed(name: str, layout: str, key: str, value: Any) -> Any:
  """An option as its layout takes it; flags give text.

  Raises:
    ValueError: the layout has no such option, or the text is of another type.
  """
  known, flag = _known_options(layout), f'--config.data.{name}.options.{key}'
  if known is None:  # a phantom, whose options are numbers
    return _literal(value)
  if key not in known:
    close = difflib.get_close_matches(key, known, 1)
    raise ValueError(
      f'The layout {layout!r} has no option {key!r}.'
      + (f' Did you mean {close[0]}?' if close else '')
      + f' Its options are {", ".join(known)}. Correct the flag {flag}.'
    )
  parameter = inspect.signature(layouts.LAYOUTS[layout].read).parameters[key]
  kind, required = str(parameter.annotation), ''
  if kind in ('str', "<class 'str'>"):
    return '' if value is None else str(value)
  value = _literal(value)
  if kind.startswith('bool') and not isinstance(value, bool):
    required = 'True or False'
  elif kind.startswith(('int', 'float')):
    wanted = int if kind.startswith('int') else (int, float)
    fits = isinstance(value, wanted) and not isinstance(value, bool)
    if not fits and not (value is None and 'None' in kind):
      required = 'a whole number' if wanted is int else 'a number'
      required += ', or None' if 'None' in kind else ''
  elif kind.startswith('tuple'):
    value = tuple(value.split('|')) if isinstance(value, str) else value
    if not isinstance(value, tuple):
      required = 'a tuple, or words with | between them'
  if required:
    raise ValueError(
      f'config.data.{name}.options.{key} is {value!r}; expected {required}. Set '
      f'{flag}=...'
    )
  return value


def _literal(value: Any) -> Any:
  if not isinstance(value, str):
    return value
  if value.lower() in ('true', 'false'):
    return value.lower() == 'true'
  try:
    return ast.literal_eval(value)
  except (ValueError, SyntaxError):
    return value


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
