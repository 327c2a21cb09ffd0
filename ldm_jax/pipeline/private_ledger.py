"""The ledger of the private cohort: which file it is, and that it has lost nothing."""

from ldm_jax.privacy import ledger
from ldm_jax.types import Config
from ldm_jax.workfolder import WorkFolder


def open_ledger(config: Config, work: WorkFolder, patients: list[str]) -> ledger.Ledger:
  """The ledger in config.ledger.path, or the one beside the store.

  A Ledger reads its file at every question, so it can be kept for a whole stage.

  Args:
    config: of the run.
    work: its folder.
    patients: names of the private cohort's patients.

  Raises:
    ValueError: as `check_complete`.
  """
  section = config.ledger
  path = section.path or _beside_store(work)
  book = ledger.Ledger(path, None if section.any_cohort else patients)
  check_complete(book, config, work)
  return book


def check_complete(book: ledger.Ledger, config: Config, work: WorkFolder) -> None:
  """Checks that the ledger holds all releases that the work folder knows of.

  Raises:
    ValueError: the store has a ledger with releases that ledger.path lacks, or
      privacy.json lists more releases than the ledger.
  """
  if config.ledger.path:
    own, known = ledger.Ledger(_beside_store(work)), ids(book)
    missing = [release for release in own.releases() if release['id'] not in known]
    if missing:
      raise ValueError(
        f'{own.path} lists {len(missing)} releases on these patients that '
        f'ledger.path={config.ledger.path!r} does not: they would be forgotten. Begin '
        "that ledger as a copy of this one, or leave ledger.path at ''."
      )
  stated = (work.read_json('privacy.json') or {}).get('releases') or ()
  if len(stated) > len(book.releases()):
    raise ValueError(
      f'privacy.json in {work.root} lists {len(stated)} releases on these patients, '
      f'the ledger {book.path} only {len(book.releases())}. A ledger only grows: set '
      'ledger.path back to the one that was used, or restore the file.'
    )


def ids(book: ledger.Ledger) -> set[str]:
  """The ids of all recorded releases."""
  return {release['id'] for release in book.releases()}


def release_of(book: ledger.Ledger, run_name: str) -> dict | None:
  """The training release that a run has recorded, or None."""
  mine = (release for release in book.releases() if release.get('run') == run_name)
  return next(mine, None)


def named(run_name: str | None, release: dict, part: str = '') -> dict:
  """A release with its run and its id, as the ledger holds it.

  Args:
    run_name: the run's random name, None before it has begun.
    release: its numbers.
    part: what is released beside the model, '' for the model.
  """
  release = {'run': f'{run_name}/{part}' if part else run_name, **release}
  return {**release, 'id': ledger.release_id(str(run_name), release)}


def _beside_store(work):
  return work.path('store', 'ledger-private.jsonl')
