"""The tables of BIDS, participants and sessions -> attributes and time of a scan."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Sequence

from ldm_jax.data.cohorts import cells
from ldm_jax.data.cohorts.attributes import Attribute, Schema, is_missing
from ldm_jax.data.cohorts.cohort import FileSource, Record
from ldm_jax.data.layouts.shared import patient_rows
from ldm_jax.data.tables import table as tables

SEX = Attribute('sex', 'categorical', categories=('F', 'M'))


class Visits:
  """What the tables say about one subject.

  Args:
    subject: its folder.
    people: participants.tsv, or None.
    own: the subject's rows in it.
    notes: receives what is missing or unknown.

  Attributes:
    columns: of the subject's own sessions.tsv.

  Raises:
    ValueError: two rows for the subject, or a table that cannot be read.
  """

  def __init__(
    self,
    subject: pathlib.Path,
    people: tables.Table | None,
    own: Sequence[int],
    notes: list[str],
  ):
    self.subject, self.notes = subject, notes
    index = people and patient_rows.only(subject.name, own, people, notes)
    self.places = [] if people is None or index is None else [(people, index)]
    self.rows: dict[str, list[tuple[tables.Table, int]]] = {}
    self.columns: set[str] = set()
    file = subject / f'{subject.name}_sessions.tsv'
    if file.is_file():
      table = tables.read(file)
      self.columns = set(table.columns)
      rows = tables.index_by(table, 'session_id', 'the session', notes, word)
      twice = [session for session, indices in rows.items() if len(indices) > 1]
      if twice:
        raise ValueError(
          f'{file} has more than one row for session {twice[0]!r}; expected one. '
          'Remove the others.'
        )
      there = {word(p.name) for p in subject.glob('ses-*')}
      rows = patient_rows.by_scan(rows, there, []) | rows
      self.rows = {session: [(table, index)] for session, (index,) in rows.items()}
    dates = {session: _date(*row) for session, (row,) in self.rows.items()}
    # Ages may all be that of the first visit, dates are not: a subject's time axis has
    # either dates at all sessions or none.
    whole = {word(p.name) for p in subject.glob('ses-*')} <= set(dates)
    self.dates = dates if whole and None not in dates.values() else {}

  def record(self, image: str, source: FileSource, schema: Schema) -> Record:
    """The record of one image; a session's row goes before the participant's.

    Raises:
      ValueError: a cell that is no number or known category.
    """
    stem = pathlib.Path(image).name.split('.nii')[0]
    words = dict(word.partition('-')[::2] for word in stem.split('_'))
    session = words.get('ses', '')
    places = [*self.rows.get(session, []), *self.places]
    values = {a.name: self._value(a, places) for a in schema}
    return Record(
      stem.rpartition('_')[0],
      self.subject.name,
      source,
      values,
      visit=f'ses-{session}' if session else '',
      years=self.dates.get(session),
    )

  def _value(self, attribute, places):
    column = attribute.column or attribute.name
    for table, index in places:
      if column not in table.columns or is_missing(table.rows[index][column]):
        continue
      if attribute == SEX:
        return table.one_of(index, column, cells.SEXES, self.notes)
      return table.attribute(index, attribute)
    return None


def _date(table: tables.Table, index: int) -> float | None:
  """Years since 1900: dates are often shifted, but by the same time at all visits."""
  try:
    text = table.rows[index].get('acq_time', '')
    date = datetime.datetime.fromisoformat(text).replace(tzinfo=None)
  except ValueError:
    return None
  return (date - datetime.datetime(1900, 1, 1)).total_seconds() / 86400 / 365.25


def word(text: str) -> str:
  """'sub-01', 'ses-01' and '01' are one id."""
  return text.strip().removeprefix('sub-').removeprefix('ses-')
