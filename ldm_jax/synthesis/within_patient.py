"""Several volumes of one synthetic patient: phases of a heartbeat, or visits.

They are drawn from the same noise, the initial one and that of every step, and are
asked for with the same attributes, but for those that `config.sample.within_patient`
names. What attributes leave open follows from the noise, so that the anatomy stays and
what is named changes.

The values that change are constants of the config, and each patient's other attributes
are a request like any other (`requests`): no further row of any cohort is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ldm_jax.config.parsing import suggest
from ldm_jax.data.cohorts.attributes import Attribute, Schema

# Attribute -> its value in each volume of a patient, as `config.sample` gives them.
Values = Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Change:
  """What an attribute does from one volume of a patient to the next.

  Attributes:
    column: of the attribute in a request.
    is_relative: whether the codes are added to the patient's own.
    codes: (v,) one for each volume, encoded.
  """

  column: int
  is_relative: bool
  codes: np.ndarray


def num_volumes(values: Values) -> int:
  """Volumes of a synthetic patient; 1 where nothing changes."""
  return len(next(iter(values.values()), ('',)))


def patients(values: Values, num: int) -> np.ndarray:
  """(num,) number of the patient whom each volume is of: 0, 0, 1, 1, ..."""
  return np.arange(num) // num_volumes(values)


def changes(values: Values, schema: Schema) -> list[Change]:
  """The changes that `sample.within_patient` asks for.

  Raises:
    ValueError: an attribute that is not in the schema, or a value that it cannot have.
  """
  found = []
  for name, texts in values.items():
    if name not in schema.names:
      raise ValueError(
        f'sample.within_patient names the attribute {name!r}, but the model knows '
        f'{", ".join(schema.names)}.{suggest(name, schema.names)}'
      )
    found.append(_change(schema[name], schema.names.index(name), texts))
  return found


def _change(attribute: Attribute, column: int, texts: Sequence[str]) -> Change:
  key = f'sample.within_patient.{attribute.name}'
  given = '|'.join(texts)
  signs = {text[:1] in ('+', '-') for text in texts}
  is_number = attribute.kind == 'continuous'
  if is_number and len(signs) > 1:
    raise ValueError(
      f'{key} is {given!r}; expected either changes, such as +0|+2, or values, such as '
      '60|62 (=-5 for a negative one).'
    )
  is_relative = is_number and signs == {True}
  try:
    codes = np.array([attribute.encode(text.removeprefix('=')) for text in texts])
  except ValueError as error:
    raise ValueError(f'{key} is {given!r}: {error}') from error
  if is_relative:
    codes = codes - attribute.encode(0)
  if not np.isfinite(codes).all():
    raise ValueError(f'{key} is {given!r}; expected a value for every volume.')
  if is_number:
    low, high = attribute.limits
    reach = np.ptp(codes) - 1 if is_relative else np.abs(codes).max()
    if reach > 1 + 1e-5:
      raise ValueError(
        f'{key} is {given!r}, which does not fit into the range [{low:g}, {high:g}] '
        f'{attribute.unit}'.rstrip()
        + ' that the model was trained with.'
      )
  return Change(column, is_relative, codes)


def expanded(
  values: Values,
  schema: Schema,
  people: np.ndarray,
  seed: int,
  as_given: bool = False,
) -> np.ndarray:
  """Encoded requests of patients (p,k) -> of their volumes (p v,k), patient by patient.

  A value that a change would take out of its range is moved by as much as all volumes
  of the patient need; one that is unknown, and which a change is relative to, is drawn
  uniformly.

  Args:
    values: of `sample.within_patient`.
    schema: of the requests.
    people: a request for each patient.
    seed: of what is drawn.
    as_given: the requests are a table of the user, of which no value is moved or drawn.

  Raises:
    ValueError: as of `changes`; of a table, a value that would have to be moved or is
      unknown.
  """
  found, num = changes(values, schema), num_volumes(values)
  vectors = np.repeat(np.asarray(people, np.float32), num, axis=0)
  for change in found:
    own = np.asarray(people)[:, change.column]
    codes = np.broadcast_to(change.codes, (len(own), num))
    if change.is_relative:
      low, high = -1 - change.codes.min(), 1 - change.codes.max()
      if as_given:
        _check_given(schema.attributes[change.column], own, low, high)
      generator = np.random.default_rng((seed, 5, change.column))
      drawn = generator.uniform(low, high, len(own))
      own = np.clip(np.where(np.isfinite(own), own, drawn), low, high)
      codes = own[:, None] + codes
    vectors[:, change.column] = codes.ravel()
  return vectors


def _check_given(attribute, own, low, high):
  """Refuses values of a table that the changes of a patient do not go with."""
  # Not >, so that an unknown value counts.
  wrong = int((~((own >= low - 1e-5) & (own <= high + 1e-5))).sum())
  if wrong:
    limits = [attribute.decode(code) for code in (low, high)]
    raise ValueError(
      f'{wrong} of the {len(own)} rows of the table of requests have no value of '
      f'{attribute.name}, or one whose changes sample.within_patient.{attribute.name} '
      f'leave the range of the model; expected {limits[0]:g} to {limits[1]:g} '
      f'{attribute.unit}'.rstrip()
      + ' in every row. Correct the table.'
    )


def drawn_from(
  values: Values,
  schema: Schema,
  people: np.ndarray,
  seed: int,
  num: int | None = None,
  as_given: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
  """Requests (n,k) of `expanded`, at most `num`, and the patient (n,) of each volume.

  The patients are None where every volume is a patient of its own.
  """
  vectors = expanded(values, schema, people, seed, as_given)[:num]
  return vectors, patients(values, len(vectors)) if values else None


def told(values: Values, schema: Schema, vectors: np.ndarray) -> list[np.ndarray]:
  """What requests (n,k) tell of the rows that they were made from.

  For `requests.check_not_copied`: a record stays one when a constant is added to a
  value of it.

  Args:
    values: of `sample.within_patient`.
    schema: of the requests.
    vectors: of `expanded`.

  Returns:
    Arrays (n,k): the requests; these with the changes undone, and what was replaced
    unknown; and with all that changes unknown. The first alone where nothing changes.
  """
  found = changes(values, schema)
  if not found:
    return [vectors]
  undone, rest = np.array(vectors), np.array(vectors)
  turn = np.arange(len(vectors)) % num_volumes(values)
  for change in found:
    rest[:, change.column] = np.nan
    if change.is_relative:
      undone[:, change.column] -= change.codes[turn].astype(np.float32)
    else:
      undone[:, change.column] = np.nan
  return [vectors, undone, rest]
