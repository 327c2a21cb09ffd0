"""Which cohorts are public, and what follows for figures, messages and files.

Everything that is computed from scans names the cohorts that it read; whether it is
internal follows from these names here and nowhere else.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ldm_jax import atomic

# Patients whose scans may be used freely. Every other cohort is confidential, also a
# folder that is named on the command line.
PUBLIC = ('public', 'measuring', 'public_test')
# Cohorts of a config whose ids, values and paths no message may hold.
CONFIDENTIAL = ('private', 'test')


class ConfidentialError(ValueError):
  """An error about patients who are not public.

  Its message may be printed into the log of a cluster: it holds no id, no value and no
  path of a patient. These are in `details`, which `write_notes` keeps in the store.

  Attributes:
    details: cohort name -> lines that name patients.
  """

  def __init__(self, message: str, details: Mapping[str, Iterable[str]]):
    super().__init__(message)
    self.details = {name: tuple(lines) for name, lines in details.items()}


def joined(errors: Sequence[ValueError]) -> ValueError:
  """One error that tells several, confidential if one of them is."""
  if len(errors) == 1:
    return errors[0]
  message = ' '.join(dict.fromkeys(str(error) for error in errors))
  details: dict[str, tuple[str, ...]] = {}
  for error in errors:
    for name, lines in getattr(error, 'details', {}).items():
      details[name] = (*details.get(name, ()), *lines)
  return ConfidentialError(message, details) if details else ValueError(message)


def is_internal(cohorts: Iterable[str]) -> bool:
  """Whether something that read these cohorts must stay with the owner of the data."""
  return any(name not in PUBLIC for name in cohorts)


def mark(*cohorts: str) -> dict[str, Any]:
  """The entries of a figure that say what it read.

  Args:
    cohorts: names of the cohorts whose scans or records it was computed from; none for
      a figure of synthetic volumes alone.

  Returns:
    {'reads': [...]}, and 'internal' of a figure that read any.
  """
  reads = list(dict.fromkeys(cohorts))
  return {'reads': reads, 'internal': is_internal(reads)} if reads else {'reads': reads}


def marked(part: Any, mark: Mapping[str, Any]) -> Any:
  """Nested figures, each with the entries of a `mark`; None stays None."""
  if part is None or 'value' in part:
    return part and {**part, **mark}
  return {name: marked(inner, mark) for name, inner in part.items()}


def notes_path(store_dir: str | os.PathLike, cohort: str) -> pathlib.Path:
  """The file in the store that holds the messages about a cohort's patients."""
  return pathlib.Path(store_dir) / f'notes-{cohort}.txt'


def write_notes(
  store_dir: str | os.PathLike, cohort: str, lines: Iterable[str]
) -> pathlib.Path:
  """Replaces the messages about a cohort's patients; returns the file's path.

  Args:
    store_dir: folder of the store, which stays with the owner of the data.
    cohort: name of the cohort.
    lines: messages; without any, an older file is removed.
  """
  path, text = notes_path(store_dir, cohort), ''.join(f'{line}\n' for line in lines)
  if text:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, text)
  else:
    path.unlink(missing_ok=True)
  return path
