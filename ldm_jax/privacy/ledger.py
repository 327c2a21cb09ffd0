"""The ledger: every private release about the patients of one cohort.

One JSONL file per private cohort, beside its store or at a place that several work
folders share, so that a second run on the same patients adds to the first. A release is
recorded before its first private step, with all steps it plans: a run that is killed
has spent at most what the ledger says, and a resumed run finds its own id and adds
nothing.

One line without a release identifies the cohort: a random salt, and the SHA-256 of the
salt and all patient identifiers together. A run on other patients is refused. No
identifier can be read from the line: checking a guess requires guessing the whole
cohort. Ledgers that were written before this line existed are bound to the cohort by
the next release.

Lines are only ever appended. Each carries a hash of its content and of the previous
line, so an edited, reordered or truncated line is detected and refused. (Whole lines
missing at the end cannot be detected from the file alone: protect it like the data.)
"""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import dp_accounting

from ldm_jax import atomic, locks
from ldm_jax.privacy import accounting, finite_precision, key_origin, privacy_json
from ldm_jax.privacy.registry import Registry

ELSEWHERE = 'elsewhere'


def release_id(run: str, release: Mapping[str, Any]) -> str:
  """Id of a release: 16 hexadecimal digits of a hash of its run and its content.

  Args:
    run: a string that a run keeps when it resumes and shares with no other run (a
      random one, written into the workdir when the run begins).
    release: the release dict. Any changed number gives another id, so a changed run is
      added as a new release. How its key was made, and by which generator it draws,
      is no part of the id: a run keeps its key when it resumes.
  """
  left_out = ('id', key_origin.FIELD, key_origin.GENERATOR_FIELD)
  content = {key: value for key, value in release.items() if key not in left_out}
  return hashlib.sha256(f'{run}\n{_canonical(content)}'.encode()).hexdigest()[:16]


def cohort_mark(salt: str, patients: Iterable[str]) -> str:
  """SHA-256 of a salt and the sorted patient identifiers: identifies a cohort."""
  words = sorted({str(patient) for patient in patients})
  return hashlib.sha256(f'{salt}\n{_canonical(words)}'.encode()).hexdigest()


class Ledger:
  """The releases of one private cohort, in one file.

  Attributes:
    path: the JSONL file; it need not exist yet.
    patients: identifiers of the cohort's patients, or None to skip the check of the
      cohort (for reading only).
    registry: None, or the registry that knows what other ledgers released about any of
      `counted`; this ledger adds its own releases to it.
    counted: identifiers by which the registry knows the patients; by default
      `patients`.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    patients: Iterable[str] | None = None,
    registry: Registry | None = None,
    counted: Iterable[str] | None = None,
  ):
    # Resolved: writing to a link would replace the link, and its lock would be another.
    self.path = pathlib.Path(path).expanduser().resolve()
    self.patients = None if patients is None else tuple(patients)
    self.registry = registry
    self.counted = tuple(counted or self.patients or ())

  def releases(self) -> list[dict[str, Any]]:
    """All recorded releases, oldest first; last those of other ledgers, which the
    registry knows and which have the field `elsewhere`.

    Raises:
      ValueError: the file is damaged (the message names the line), or it is the ledger
        of other patients.
    """
    own = self._read()[0]
    return [*own, *self._elsewhere(own)]

  def own_releases(self) -> list[dict[str, Any]]:
    """The releases of this file alone; errors as of `releases`."""
    return self._read()[0]

  def _elsewhere(self, own):
    """Releases of other ledgers that share a patient with this one."""
    if self.registry is None:
      return []
    ids = {release['id'] for release in own}
    found = self.registry.releases(self.counted)
    return [{**each, ELSEWHERE: True} for each in found if each['id'] not in ids]

  def events(self) -> list[dp_accounting.DpEvent]:
    """The accountant's events of all releases, for `accounting.calibrate`."""
    return [accounting.event(release) for release in self.releases()]

  def epsilon(self, delta: float) -> dict[str, float]:
    """Epsilon of all recorded releases: {'pld': the claim, 'rdp': its check}."""
    return accounting.epsilon(self.events(), delta)

  def record(
    self, release: Mapping[str, Any], budget: tuple[float, float] | None = None
  ) -> bool:
    """Adds one planned release; see `record_all`.

    Returns:
      True if the release was added, False if its id was recorded already.
    """
    return self.record_all([release], budget) == 1

  def record_all(
    self,
    releases: Iterable[Mapping[str, Any]],
    budget: tuple[float, float] | None = None,
  ) -> int:
    """Adds planned releases durably, before anything private is computed.

    Either all are added or none, so that a refused list has spent nothing.

    Args:
      releases: dicts with 'id' (see `release_id`), 'name' and the fields that
        `accounting.event` needs; further fields are kept as they are. `randomness`
        says how the noise key was made (`key_origin`); without it no protection is
        claimed for the ledger.
      budget: None or (epsilon, delta), the limit for all releases together. It is
        checked under the lock that covers the write, so two concurrent runs cannot
        exceed it.

    Returns:
      The number of releases added: those whose id was not recorded already.

    Raises:
      ValueError: an invalid or incomplete release, a recorded id with other numbers, an
        exceeded budget, or a damaged file. Nothing is written then.
      OSError: the file cannot be written; its old content is intact.
    """
    releases = [_checked(release) for release in releases]
    with contextlib.ExitStack() as stack:
      if self.registry is not None:  # first, so that two ledgers cannot wait crosswise
        stack.enter_context(self.registry.locked())
      stack.enter_context(
        locks.exclusive(self.path.with_name(f'{self.path.name}.lock'))
      )
      known, chain, text, cohort = self._read()
      lines = [each for each in releases if not self._holds(known, each)]
      if not lines:
        self._register(known)
        return 0
      added, own = len(lines), [*known, *lines]
      known = [*known, *self._elsewhere(own)]
      if budget is not None:
        events = [accounting.event(each) for each in known]
        names = ' with '.join(release['name'] for release in lines)
        self._check_budget(events, names, map(accounting.event, lines), *budget)
      if cohort is None and self.patients is not None:
        salt = secrets.token_hex(16)
        mark = cohort_mark(salt, self.patients)
        lines = [{'cohort': mark, 'salt': salt}, *lines]
      # Before the file: a run that is killed in between has spent nothing, and counts.
      self._register(own)
      for line in lines:
        chain = _link(chain, line)
        text += _canonical({**line, 'chain': chain}) + '\n'
      atomic.write_bytes(self.path, text.encode())
      _sync_folder(self.path.parent)
    return added

  def _register(self, releases):
    if self.registry is not None:
      self.registry.add(self.counted, releases)

  def statement(self, **details: Any) -> dict[str, Any]:
    """The content of privacy.json for this ledger; see `privacy_json.build`."""
    return privacy_json.build(self.releases(), **details)

  def check_budget(
    self,
    name: str,
    events: Iterable[dp_accounting.DpEvent],
    epsilon: float,
    delta: float,
  ) -> None:
    """Raises ValueError if events would bring the total above epsilon at delta.

    For an early error only; `record_all` checks again under the lock.
    """
    self._check_budget(self.events(), name, events, epsilon, delta)

  def _check_budget(self, known, name, events, epsilon, delta):
    total = accounting.claim(accounting.epsilon([*known, *events], delta))
    if not total <= epsilon * (1 + 1e-9):
      spent = accounting.claim(accounting.epsilon(known, delta))
      raise ValueError(
        f'{name!r} would bring these patients to epsilon {total:.4g} at delta '
        f'{delta:g}; the total allowed is {epsilon:g}, and {spent:.4g} of it is spent '
        f'(see {self.path}{self.others()}). Plan fewer steps or a smaller '
        'adapt.privacy.epsilon, or raise ledger.total_epsilon (adapt.privacy.epsilon '
        'where that is None).'
      )

  def others(self) -> str:
    """Words on the releases of other ledgers that count here, '' if there are none."""
    count = len(self._elsewhere(self.own_releases()))
    if self.registry is None or not count:
      return ''
    return (
      f' and {self.registry.folder}: {count} releases of other work folders are about '
      'some of the same patients. If those are other people with equal identifiers, '
      'name this data set by ledger.dataset'
    )

  def _holds(self, known, release):
    for other in known:
      if other['id'] == release['id']:
        if _canonical(other) == _canonical(release):
          return True
        raise ValueError(
          f'release {release["id"]} is recorded in {self.path} with other numbers. A '
          'changed run is a new release: make its id with release_id.'
        )
    return False

  def _read(self):
    """(releases, hash of the last line, text of the file, line of the cohort)."""
    try:
      text = self.path.read_bytes().decode('utf-8', errors='replace')
    except FileNotFoundError:
      return [], '', '', None
    except OSError as error:
      raise ValueError(
        f'the privacy ledger {self.path} cannot be read ({error.strerror}); without it '
        'no private run may start. Restore the file or its permissions.'
      ) from error
    releases, chain, cohort = [], '', None
    for number, line in enumerate(text.splitlines(keepends=True), 1):
      try:
        content = json.loads(line)
        chain_found = content.pop('chain')
        chain = _link(chain, content)
        damaged = not line.endswith('\n') or chain_found != chain
        if 'cohort' in content:
          damaged = damaged or cohort is not None or set(content) != {'cohort', 'salt'}
          cohort = content
        else:
          accounting.event(content)
          damaged = damaged or 'id' not in content
          releases.append(content)
      except (ValueError, KeyError, AttributeError, TypeError):
        damaged = True
      if damaged:
        raise ValueError(
          f'line {number} of the privacy ledger {self.path} is damaged or was edited; '
          'what these patients have spent is unknown, so no private run may start. '
          'Restore the file from a backup.'
        )
    self._check_cohort(cohort)
    return releases, chain, text, cohort

  def _check_cohort(self, cohort):
    if cohort is None or self.patients is None:
      return
    if cohort['cohort'] != cohort_mark(cohort['salt'], self.patients):
      raise ValueError(
        f'the privacy ledger {self.path} belongs to other patients than the '
        f'{len(self.patients)} of data.private. Set ledger.path to the ledger of these '
        'patients, or to a new file if nothing was ever released about any of them. '
        'If some patients are the same, add to this ledger with ledger.any_cohort=True.'
      )


def _checked(release):
  for name in ('id', 'name'):
    if not isinstance(release.get(name), str) or not release[name]:
      raise ValueError(f'a release needs a text {name!r}; got {release.get(name)!r}.')
  if 'cohort' in release:
    raise ValueError(
      "a release must not have the field 'cohort', which is reserved for the line "
      'that identifies the cohort; rename it.'
    )
  accounting.event(release)
  key_origin.check(release)
  finite_precision.check(release)
  return json.loads(_canonical({**release, 'steps': int(release['steps'])}))


def _canonical(content):
  return json.dumps(content, sort_keys=True, allow_nan=False)


def _link(chain, release):
  return hashlib.sha256(f'{chain}\n{_canonical(release)}'.encode()).hexdigest()[:16]


def _sync_folder(folder):
  if os.name == 'nt':
    return  # Windows opens no folder, and keeps the new name with the file
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
