"""The ledger of the private cohort: which file it is, and that it has lost nothing."""

from ldm_jax.privacy import ledger, registry
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
  bound = None if section.any_cohort else patients
  book = ledger.Ledger(path, bound, registry_of(config), patients)
  check_complete(book, config, work)
  return book


def registry_of(config: Config) -> registry.Registry | None:
  """Where releases of other work folders on the same patients are found.

  None without patients of a layout: a phantom's are made up; and for
  `ledger.registry='none'`.
  """
  section = config.ledger
  has_patients = config.data.private.layout and not is_made_up(config)
  if not has_patients or section.registry == 'none':
    return None
  # What the user's own registry knows counts in a named one, too.
  usual = registry.default_folder()
  return registry.Registry(section.registry or usual, section.dataset, usual)


def is_made_up(config: Config) -> bool:
  """Whether the private cohort is a phantom, whose patients are no persons."""
  return config.data.private.layout.startswith('phantom_')


def counts_all(config: Config) -> bool:
  """Whether releases of other work folders on these patients are counted."""
  return is_made_up(config) or config.ledger.registry != 'none'


def check_complete(book: ledger.Ledger, config: Config, work: WorkFolder) -> None:
  """Checks that the ledger holds all releases that the work folder knows of.

  Raises:
    ValueError: the store has a ledger with releases that ledger.path lacks, or
      privacy.json lists more releases than the ledger.
  """
  if config.ledger.path:
    own, known = ledger.Ledger(_beside_store(work)), ids(book)
    missing = [release for release in own.own_releases() if release['id'] not in known]
    if missing:
      raise ValueError(
        f'{own.path} lists {len(missing)} releases on these patients that '
        f'ledger.path={config.ledger.path!r} does not: they would be forgotten. Begin '
        "that ledger as a copy of this one, or leave ledger.path at ''."
      )
  stated = (work.read_json('privacy.json') or {}).get('releases') or ()
  # Those of other work folders are in the registry, not in this file.
  stated = [release for release in stated if not release.get(ledger.ELSEWHERE)]
  recorded = len(book.own_releases())
  if len(stated) > recorded:
    raise ValueError(
      f'privacy.json in {work.root} lists {len(stated)} releases on these patients, '
      f'the ledger {book.path} only {recorded}. A ledger only grows: set ledger.path '
      'back to the one that was used, or restore the file.'
    )


def ids(book: ledger.Ledger) -> set[str]:
  """The ids of all releases in this ledger's own file."""
  return {release['id'] for release in book.own_releases()}


def release_of(book: ledger.Ledger, run_name: str) -> dict | None:
  """The training release that a run has recorded, or None."""
  mine = (release for release in book.own_releases() if release.get('run') == run_name)
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
