"""The cohorts a config names: data.public, data.private, data.test, data.measuring.

Sections that share one layout, root and options are parts of one patient-wise split, so
that no patient can stand in two of them.
"""

import dataclasses
import hashlib
import json

from ldm_jax.config.parsing import to_plain
from ldm_jax.data import layouts
from ldm_jax.data.cohorts import cohort as cohorts_
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.readers.dicom import container

NAMES = ('public', 'private', 'test', 'measuring')
# data.<cohort>.part of a data set's own part: 'published:train'; 'published:train/x' is
# the share x of data.split of its patients.
PUBLISHED = 'published:'
# Layouts of real hearts: their documented population is that of the cardiac phantom,
# whose constants are published and no statistics of any data set.
HEARTS = ('acdc', 'mnms', 'mnms2', 'scd', 'scd_dicom', 'ukbb')


def cohorts(data, disjoint=True):
  """Reads the cohorts of `config.data`.

  Args:
    disjoint: False lets a patient stand in two cohorts, for those who look into it.

  Returns:
    Dict of name -> Cohort for the sections that are not empty.

  Raises:
    ValueError: if all are empty, a layout is unknown, schemas differ, or a patient
      stands in two cohorts.
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
      wholes[source] = _read(name, section, data.schema)
    whole = wholes[source]
    whole = _part(name, whole, data)
    if not len(whole):
      raise ValueError(
        f'The cohort data.{name} holds no patient: data.{name}.root has too few '
        'patients for data.split. Add patients or change the shares.'
      )
    found[name] = dataclasses.replace(whole, name=name)
  if not found:
    raise ValueError(
      'The config names no data: data.public, data.private and data.test are all '
      'empty. Set data.public.layout (one of '
      f'{", ".join(sorted(layouts.LAYOUTS))}) and its root.'
    )
  if disjoint:
    cohorts_.check_disjoint(found)
  schemas = {cohort.schema for cohort in found.values()}
  if len(schemas) > 1:
    raise ValueError(
      'The cohorts have different attributes: '
      + '; '.join(f'{n}: {", ".join(c.schema.names)}' for n, c in found.items())
      + '. Set data.schema to the attributes they share.'
    )
  return found


def listing_digest(found):
  """Hash of which records there are and of their files' size and time of change."""
  lines = []
  for name, cohort in found.items():
    lines.append([name, cohort.schema.to_config()])
    for record in cohort.records:
      lines.append(
        [record.id, record.patient, sorted(map(str, record.attributes.items()))]
      )
      lines.append(_stamp(record.source))
      lines.append(getattr(record.source, 'reason', ''))  # of a faulty one
  return hashlib.sha256(json.dumps(lines, default=str).encode()).hexdigest()


def population(data, num, seed):
  """Requests from the documented population of the private (or public) layout.

  Returns:
    List of dicts; attributes that the population does not know are not in them.

  Raises:
    ValueError: if the layout documents no population.
  """
  section = data.private if data.private.layout else data.public
  if section.layout in HEARTS:
    return layouts.LAYOUTS['phantom_cardiac'].population(num, seed)
  layout = layouts.LAYOUTS[section.layout]
  if not hasattr(layout, 'population'):
    raise ValueError(
      f"sample.requests is 'population', but the layout {section.layout!r} documents "
      "none. Use sample.requests='uniform', 'private_prior' or the path of a table of "
      'requests.'
    )
  return layout.population(num, seed, **_options(section))


def _read(name, section, schema):
  if section.layout not in layouts.LAYOUTS:
    raise ValueError(
      f'config.data.{name}.layout is {section.layout!r}, but must be one of '
      f'{", ".join(sorted(layouts.LAYOUTS))}.'
    )
  options = _options(section)
  if schema:
    options['schema'] = Schema.from_config([dict(entry) for entry in schema])
  return layouts.LAYOUTS[section.layout].read(section.root, **options)


def _part(name, whole, data):
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


def _options(section):
  return {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in to_plain(section.options).items()
  }


def _stamp(source):
  files = getattr(source, 'files', None)
  if files is None:
    return source.fingerprint()
  return [container.stamp(file) or [file] for file in files]
