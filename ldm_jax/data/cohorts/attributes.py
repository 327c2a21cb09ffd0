"""Named attributes of a scan <-> vectors a network reads: mapping <-> (k,) float32.

A continuous attribute with the range [low, high] becomes 2 (v - low) / (high - low)
- 1, never clipped, so that a value outside its range stays visible. A categorical
attribute becomes the index of its category. A missing value becomes NaN; the network
owns a learned embedding for it. Ranges are clinical constants or come from the config:
a range measured on a private cohort would be a private release.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from ldm_jax.data.cohorts import cells

MISSING = frozenset({'', 'n/a', 'na', 'nan', 'none', 'null', '-', '?'})


def is_missing(value: Any) -> bool:
  """Whether a table's cell means "not known": None, NaN, '', 'n/a', ..."""
  if value is None:
    return True
  if isinstance(value, str):
    return value.strip().lower() in MISSING
  return isinstance(value, float | np.floating) and math.isnan(value)


@dataclasses.dataclass(frozen=True)
class Attribute:
  """One named property of a scan.

  Attributes:
    name: name in the schema, in configs and in samples.csv.
    kind: 'continuous' (low, high in `unit`) or 'categorical' (`categories`).
    low: value that encodes to -1.
    high: value that encodes to +1.
    unit: shown in reports, e.g. 'ml'.
    categories: allowed values, strings or numbers; the index is the code.
    column: column of the table that holds it; the name when empty.
    labels: what the categories mean, where these are codes; understood beside them.
  """

  name: str
  kind: str = 'continuous'
  low: float | None = None
  high: float | None = None
  unit: str = ''
  categories: tuple = ()
  column: str = ''
  labels: tuple = ()

  def __post_init__(self):
    object.__setattr__(self, 'categories', tuple(self.categories or ()))
    object.__setattr__(self, 'labels', tuple(self.labels or ()))
    if not isinstance(self.name, str) or not self.name:
      raise ValueError(
        f'Expected an attribute with a name, got {self.name!r}. Set name=<text> in '
        'every entry of data.schema.'
      )
    if self.kind == 'continuous':
      self._check_range()
    elif self.kind == 'categorical':
      self._check_categories()
    else:
      raise ValueError(
        f'Attribute {self.name!r} has kind {self.kind!r}; expected "continuous" or '
        '"categorical". Change its entry in data.schema.'
      )

  def _check_range(self):
    for bound in (self.low, self.high):
      if (
        isinstance(bound, bool)
        or not isinstance(bound, int | float | np.number)
        or not math.isfinite(bound)
      ):
        raise ValueError(
          f'Continuous attribute {self.name!r} has the range ({self.low}, '
          f'{self.high}); expected two finite numbers low < high. Set low and high '
          'in data.schema to known clinical limits: a range measured on private '
          'patients would be a private release.'
        )
    if not self.low < self.high:
      raise ValueError(
        f'Continuous attribute {self.name!r} has the range ({self.low}, {self.high}); '
        'expected low < high. Change its entry in data.schema.'
      )

  def _check_categories(self):
    texts = [str(category) for category in self.categories]
    if not texts or len(set(texts)) != len(texts):
      raise ValueError(
        f'Categorical attribute {self.name!r} has categories {self.categories!r}; '
        'expected at least one, all different. Change its entry in data.schema.'
      )
    if self.labels and len(self.labels) != len(texts):
      raise ValueError(
        f'Categorical attribute {self.name!r} has the labels {self.labels!r} for '
        f'{len(texts)} categories; expected one each. Change its entry in data.schema.'
      )

  @property
  def limits(self) -> tuple[float, float]:
    """(low, high) of a continuous attribute."""
    return cast('tuple[float, float]', (self.low, self.high))

  def encode(self, value: Any) -> float:
    """Encodes one value; missing -> NaN. Raises ValueError for an impossible one."""
    if is_missing(value):
      return math.nan
    if self.kind == 'categorical':
      return float(self._category_index(value))
    number = _as_number(value)
    if number is None:
      raise ValueError(self.refusal(value))
    low, high = self.limits
    return 2.0 * (number - low) / (high - low) - 1.0

  def refusal(self, value: Any) -> str:
    """What is wrong with a value that is no number."""
    return (
      f'Attribute {self.name!r} has the value {value!r}; expected a finite number'
      f'{" in " + self.unit if self.unit else ""} or an empty cell. Correct the '
      'table, or declare the attribute categorical in data.schema.'
    )

  def decode(self, code: float) -> Any:
    """Inverse of `encode`; NaN -> None, a categorical code -> the nearest category."""
    code = float(code)
    if math.isnan(code):
      return None
    if self.kind == 'continuous':
      low, high = self.limits
      return low + (code + 1.0) / 2.0 * (high - low)
    return self.categories[min(max(round(code), 0), len(self.categories) - 1)]

  def _category_index(self, value: Any) -> int:
    index = cells.category(value, self.categories)
    if index is None and self.labels:
      index = cells.category(value, self.labels)
    if index is not None:
      return index
    raise ValueError(
      f'Attribute {self.name!r} has the value {value!r}; known categories are '
      f'{list(self.categories)}. Correct the table, or add the category in data.schema.'
    )


@dataclasses.dataclass(frozen=True)
class Schema:
  """An ordered set of attributes; the order is that of the encoded vector."""

  attributes: tuple[Attribute, ...] = ()

  def __post_init__(self):
    object.__setattr__(self, 'attributes', tuple(self.attributes))
    repeated = {name for name in self.names if self.names.count(name) > 1}
    if repeated:
      raise ValueError(
        f'The schema names {sorted(repeated)} more than once; expected distinct '
        'names. Change data.schema.'
      )

  def __len__(self) -> int:
    return len(self.attributes)

  def __iter__(self) -> Iterator[Attribute]:
    return iter(self.attributes)

  def __getitem__(self, name: str) -> Attribute:
    for attribute in self.attributes:
      if attribute.name == name:
        return attribute
    raise ValueError(
      f'Attribute {name!r} is not in the schema; it holds {list(self.names)}.'
    )

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the attributes, in order."""
    return tuple(attribute.name for attribute in self.attributes)

  @property
  def num_categories(self) -> tuple[int, ...]:
    """Per attribute 0 for continuous, else the number of categories."""
    return tuple(len(attribute.categories) for attribute in self.attributes)

  def select(self, names: Sequence[str]) -> Schema:
    """Returns the schema of the named attributes, in the order of `names`."""
    return Schema(tuple(self[name] for name in names))

  @classmethod
  def from_config(cls, entries: Sequence[Mapping[str, Any]]) -> Schema:
    """Builds a schema from dicts {name, kind, low, high, unit, categories, column}."""
    known = {field.name for field in dataclasses.fields(Attribute)}
    attributes = []
    for entry in entries:
      entry = dict(entry)
      unknown = sorted(set(entry) - known)
      if unknown or 'name' not in entry:
        raise ValueError(
          f'A schema entry has the keys {sorted(entry)}; expected "name" and any of '
          f'{sorted(known)}. Change data.schema.'
        )
      if entry.get('categories') and 'kind' not in entry:
        entry['kind'] = 'categorical'
      attributes.append(Attribute(**entry))
    return cls(tuple(attributes))

  def to_config(self) -> list[dict[str, Any]]:
    """Returns JSON-able dicts from which `from_config` rebuilds the same schema."""
    default = Attribute('x', low=0, high=1)
    entries = []
    for attribute in self.attributes:
      entry: dict[str, Any] = {'name': attribute.name, 'kind': attribute.kind}
      if attribute.kind == 'continuous':
        entry |= zip(('low', 'high'), map(float, attribute.limits), strict=True)
      else:
        entry['categories'] = list(attribute.categories)
        entry |= {'labels': list(attribute.labels)} if attribute.labels else {}
      for key in ('unit', 'column'):
        if getattr(attribute, key) != getattr(default, key):
          entry[key] = getattr(attribute, key)
      entries.append(entry)
    return entries

  def encode(self, values: Mapping[str, Any]) -> np.ndarray:
    """Encodes a mapping name -> value; names absent from it are missing (NaN).

    Returns:
      float32 (k,), continuous in about [-1, 1], categorical as index, missing NaN.

    Raises:
      ValueError: a value is not a number or not a known category.
    """
    codes = [attribute.encode(values.get(attribute.name)) for attribute in self]
    return np.asarray(codes, np.float32)

  def decode(self, vector: np.ndarray) -> dict[str, Any]:
    """Decodes (k,) to a dict name -> number, category or None."""
    vector = np.asarray(vector)
    if vector.shape != (len(self),):
      raise ValueError(
        f'Expected an attribute vector of shape ({len(self)},), got {vector.shape}. '
        'Decode it with the schema that encoded it.'
      )
    return {
      attribute.name: attribute.decode(code)
      for attribute, code in zip(self, vector, strict=True)
    }

  def out_of_range(self, values: Mapping[str, Any]) -> list[str]:
    """Returns one message per continuous value outside its declared range."""
    messages = []
    for attribute in self:
      value = values.get(attribute.name)
      if attribute.kind != 'continuous' or is_missing(value):
        continue
      number, (low, high) = _as_number(value), attribute.limits
      if number is None or not low <= number <= high:
        messages.append(
          f'{attribute.name} = {value} lies outside [{low:g}, {high:g}] '
          f'{attribute.unit}'.rstrip()
        )
    return messages


def _as_number(value: Any) -> float | None:
  if isinstance(value, str):  # as in a table: with a decimal comma, too
    return cells.number(value)
  try:
    number = float(value)
  except (TypeError, ValueError):
    return None
  return number if math.isfinite(number) else None


# The 14 attributes of [Daum24]. The ranges are generous clinical limits of adults,
# fixed here once; they are never measured on a cohort.
# [Daum24] Daum et al., arXiv 2407.16405.
CARDIAC_SCHEMA = Schema(
  (
    Attribute('LVEDV', low=30, high=350, unit='ml'),
    Attribute('LVESV', low=5, high=300, unit='ml'),
    Attribute('LVEF', low=5, high=85, unit='%'),
    Attribute('RVEDV', low=30, high=350, unit='ml'),
    Attribute('RVESV', low=5, high=300, unit='ml'),
    Attribute('RVEF', low=5, high=85, unit='%'),
    Attribute('MYOESTHICK', low=4, high=25, unit='mm'),
    Attribute('MYOEDTHICK', low=3, high=20, unit='mm'),
    Attribute('AGE', low=18, high=95, unit='years'),
    Attribute('SEX', 'categorical', categories=(0, 1)),
    Attribute('BMI', low=14, high=50, unit='kg/m2'),
    Attribute('ESED', 'categorical', categories=(0, 1)),
    Attribute('ANGLE', low=-90, high=90, unit='deg'),
    Attribute('DEPTH', low=4, high=16, unit='slices'),
  )
)
# What the codes of CARDIAC_SCHEMA mean.
CARDIAC_LABELS = {'SEX': ('female', 'male'), 'ESED': ('end-systole', 'end-diastole')}


def labelled(schema: Schema) -> Schema:
  """The schema with the labels of those attributes that are CARDIAC_SCHEMA's."""
  known = {attribute.name: attribute for attribute in CARDIAC_SCHEMA}
  return Schema(
    tuple(
      dataclasses.replace(attribute, labels=CARDIAC_LABELS[attribute.name])
      if attribute.name in CARDIAC_LABELS
      and attribute.categories == known[attribute.name].categories
      and schema.names == CARDIAC_SCHEMA.names
      else attribute
      for attribute in schema
    )
  )
