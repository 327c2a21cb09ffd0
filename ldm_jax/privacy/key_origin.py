"""How the noise key of each release was made, and what follows for the whole ledger.

Noise from a fixed seed protects nobody: whoever knows the seed subtracts it. Epsilons
add up over a ledger, so one release with such noise makes the total infinite, whatever
key later releases use. The origin is therefore recorded with every release when it is
planned, and the statement is derived from the ledger, not from the current config.
"""

from collections.abc import Iterable, Mapping
from typing import Any

# Field of a release, and its values.
FIELD = 'randomness'
OPERATING_SYSTEM = 'operating system'
FIXED_SEED = 'fixed seed'
# Of a key file that was found, without a record of how it was made.
UNKNOWN = 'unknown'
# No noise was added: epsilon is infinite by itself.
NO_NOISE = 'none'
# Field of a release: the generator of what the host draws, absent for 'threefry'.
GENERATOR_FIELD = 'generator'
ORIGINS = (OPERATING_SYSTEM, FIXED_SEED, UNKNOWN, NO_NOISE)
# Begins every sentence about a key that is or may be known; readers search for it.
FIXED_WORDS, UNKNOWN_WORDS = 'FIXED SEED', 'UNKNOWN KEY'


def of_seed(seed: int | None) -> str:
  """Origin of a new key: of the operating system without a seed, else fixed."""
  return OPERATING_SYSTEM if seed is None else FIXED_SEED


def of_release(release: Mapping[str, Any]) -> str:
  """Origin of a release's key; releases of older versions do not say: `UNKNOWN`."""
  if release.get('noise_multiplier') == 0:
    return NO_NOISE
  found = release.get(FIELD)
  return found if found in (OPERATING_SYSTEM, FIXED_SEED) else UNKNOWN


def check(release: Mapping[str, Any]) -> None:
  """Raises ValueError if a release names an origin that does not exist."""
  if FIELD in release and release[FIELD] not in ORIGINS:
    raise ValueError(
      f'release {release.get("name")!r}: expected {FIELD} to be one of '
      f'{", ".join(map(repr, ORIGINS))}, got {release[FIELD]!r}; set it by '
      'key_origin.of_seed.'
    )


def is_demonstration(releases: Iterable[Mapping[str, Any]], randomness: str) -> bool:
  """Whether any noise of these releases comes from a key that is or may be known.

  Args:
    releases: all of a ledger.
    randomness: sentence about the current run, whose release may not be recorded yet.
  """
  origins = {of_release(release) for release in releases}
  return bool(origins & {FIXED_SEED, UNKNOWN}) or FIXED_WORDS in randomness


def describe(releases: Iterable[Mapping[str, Any]], randomness: str) -> str:
  """The sentences on randomness for a whole ledger.

  Args:
    releases: all of the ledger.
    randomness: sentence about the current run (`secret_key.describe_randomness`).
  """
  names: dict[str, list[str]] = {}
  total = 0
  for release in releases:
    total += 1
    names.setdefault(of_release(release), []).append(str(release.get('name')))
  sentences = []
  if FIXED_SEED in names:
    sentences.append(
      f'{FIXED_WORDS} in {len(names[FIXED_SEED])} of {total} releases '
      f'({_listed(names[FIXED_SEED])}): anyone who knows the seed can remove their '
      'noise, so these patients have no protection, whatever key later runs use'
    )
  if UNKNOWN in names:
    sentences.append(
      f'{UNKNOWN_WORDS} in {len(names[UNKNOWN])} of {total} releases '
      f'({_listed(names[UNKNOWN])}): the ledger does not say how their noise key was '
      'made, so it may be known and no protection is claimed'
    )
  if not sentences:
    return randomness
  return '. '.join([*sentences, f'The current run: {randomness}'])


def _listed(names):
  return ', '.join(sorted(set(names)))
