"""Two tables of BIDS, participants and sessions -> attributes and time of a scan."""

from __future__ import annotations

import datetime
import pathlib

from ldm_jax.data.cohorts.attributes import Attribute, Schema, is_missing
from ldm_jax.data.cohorts.cohort import FileSource, Record
from ldm_jax.data.tables import cells
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

  def __init__(self, subject: pathlib.Path, people, own, notes):
    if len(own) > 1:
      raise ValueError(
        f'{subject.name} has {len(own)} rows in {people.path}; required is one. Remove '
        'the others, or move them to its sessions.tsv.'
      )
    self.subject, self.notes = subject, notes
    self.person = (people, own[0]) if own else None
    if people is not None and not own:
      notes.append(f'{subject.name}: without a row in {people.path.name}')
    self.table, self.rows, self.columns = None, {}, set()
    file = subject / f'{subject.name}_sessions.tsv'
    if file.is_file():
      self.table = tables.read(file)
      self.columns = set(self.table.columns)
      rows = tables.index_by(self.table, 'session_id', 'the session', notes, word)
      twice = [session for session, indices in rows.items() if len(indices) > 1]
      if twice:
        raise ValueError(
          f'{file} has more than one row for session {twice[0]!r}; required is one. '
          'Remove the others.'
        )
      self.rows = {session: index for session, (index,) in rows.items()}
    dates = {session: self._date(index) for session, index in self.rows.items()}
    # Ages of one subject may all be that of the first visit; dates are not. Both
    # together are no time axis.
    whole = {word(p.name) for p in subject.glob('ses-*')} <= set(dates)
    self.dates = dates if whole and None not in dates.values() else {}

  def record(self, image: str, source: FileSource, schema: Schema) -> Record:
    """The record of one image; a session's row stands before the participant's.

    Raises:
      ValueError: a cell that is no number or known category.
    """
    stem = pathlib.Path(image).name.split('.nii')[0]
    words = dict(word.partition('-')[::2] for word in stem.split('_'))
    session = words.get('ses', '')
    places = [self.person]
    if session in self.rows:
      places = [(self.table, self.rows[session]), self.person]
    values = {a.name: self._value(a, [p for p in places if p]) for a in schema}
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

  def _date(self, index) -> float | None:
    """Years since 1900: dates are often shifted, but by the same time at all visits."""
    text = self.table.rows[index].get('acq_time', '')
    try:
      date = datetime.datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
      return None
    return (date - datetime.datetime(1900, 1, 1)).total_seconds() / 86400 / 365.25


def word(text: str) -> str:
  """'sub-01', 'ses-01' and '01' are one id."""
  return text.strip().removeprefix('sub-').removeprefix('ses-')
