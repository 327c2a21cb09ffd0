"""The privacy statement: releases -> the dict that is stored as privacy.json.

Any reader can recompute epsilon from it: each release has its mechanism, noise
multiplier (standard deviation of the noise over the clip norm), sampling probability,
steps, and further fields that its mechanism needs; `sampling` describes in words how
patients are drawn and what releases this amounts to.
"""

import functools
import math
import os
import pathlib
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ldm_jax
from ldm_jax import atomic
from ldm_jax.data import demonstration_split
from ldm_jax.privacy import accounting, checks, finite_precision, key_origin, trade_off

ASSUMPTIONS = (
  'the unit is the patient: all volumes of a patient enter one clipped contribution',
  'the number of private patients is public and fixed before training',
  'patients are drawn as each release says under sampling, and the draws stay secret',
  'the noise key is unpredictable and is known to nobody who sees the results',
  'the autoencoder, its latent scale and the attribute ranges come from public data or '
  'constants',
  'the ledger file is kept with the data and lists every release on these patients',
  'a patient appears in the cohort under one identifier only',
)
NOT_COVERED = (
  'patients of the public and measuring cohorts: their data have no protection',
  'evaluation figures marked internal, which look at private data',
  'the choice of hyper-parameters, where earlier private runs outside this ledger '
  'guided it',
  'floating point of the training noise: its values have relative errors up to 2^-21, '
  'below the public grid to which noisy sums are rounded; its grid and its end are '
  'covered, by the rounding and by delta_floating_point',
  'the generator threefry2x32, which draws the training noise and is not certified as '
  'cryptographic',
  'running time, memory and power of the machine while it trains',
  'the work folder itself (store, checkpoints, key): whoever reads it reads the data',
)
# What each relation says; dp_accounting calls the first one REPLACE_SPECIAL.
NEIGHBOURS = {
  'add_or_remove_one': (
    'zero-out (replace-special): the data of one patient, all volumes and attributes, '
    'are replaced by a record that contributes nothing; the number of patients N, the '
    'sampling and the divisor stay as they are, and N is public. It has the epsilon of '
    'adding or removing one patient, but it is no promise that taking part is hidden '
    'from somebody who knows all others and counts: N tells how many there were. It '
    'bounds an attacker who asks whether the record of this patient is empty'
  ),
  'substitute_one': (
    'substitution (replace-one): the data of one patient are replaced by those of any '
    'other person; N stays. It bounds an attacker who knows N and all other patients '
    'and asks which of two persons took part'
  ),
}
RELEASE_FIELDS = (
  'name',
  'mechanism',
  'noise_multiplier',
  'sampling_probability',
  'steps',
  'clip_norm',
)
# Further fields, of some mechanisms only.
MORE_FIELDS = (
  'num_patients',
  'max_batch_size',
  'best_of',
  'num_bands',
  'strategy',
  'clipping',
  finite_precision.FIELD,
  key_origin.GENERATOR_FIELD,
  'elsewhere',
)
ALONE = (
  'OTHER RELEASES ON THE SAME PATIENTS: this run was accounted for by itself (ledger.'
  "registry is 'none', as in a sweep with --each_arm_alone). Its epsilon holds only if "
  'nothing else that was computed from these patients is ever shown or used; the '
  'epsilons of all runs add up'
)
CHOICE = (
  'of the runs of a private choice (mechanism best_of_gaussian) nobody sees more than '
  'the best one: neither the others nor how many there were; they are destroyed, and '
  'the score that decided is computed from the output of a run and public data'
)
UNDECIDED = (
  'THIS RUN BY ITSELF: it is one of the runs of a private choice that has not been '
  'made, or has chosen another. Only the chosen run may be seen'
)
FLOAT_NOISE = (
  'floating point of releases by an earlier version ({}): their float32 noise lies on '
  'a grid that depends on the data, which can show who took part'
)


def build(
  releases: Sequence[Mapping[str, Any]],
  *,
  delta: float,
  num_patients: int,
  randomness: str,
  config_sha256: str,
  assumptions: Iterable[str] = (),
  not_covered: Iterable[str] = (),
  unprotected_share: float | None = None,
  counts_all: bool = True,
  is_decided: bool = True,
) -> dict[str, Any]:
  """Makes the privacy statement of one private cohort.

  Args:
    releases: list of all release dicts of the cohort (from the ledger).
    delta: delta of the total, below 1 / num_patients.
    num_patients: public number of private patients.
    randomness: sentence about this run from `secret_key.describe_randomness`; what the
      ledger says about the keys of its releases comes first (`key_origin`).
    config_sha256: hash of the run's config, hexadecimal.
    assumptions, not_covered: sentences of this run, added to the general ones.
    unprotected_share: share of these patients that trained without protection, where
      one folder was split by lot (`data.demonstration_split`); it leads `not_covered`.
    counts_all: False where releases of other work folders on these patients are not
      counted (`ledger.registry='none'`): nothing is claimed then.
    is_decided: False for one of the runs of a private choice (`private_choice`) that
      has not been chosen: nothing is claimed then.

  Returns:
    A JSON-able dict with the documented keys. 'relations' has epsilon by both
    accountants for one patient added or removed (the claim), and for one patient
    substituted by another; 'neighbours' says in words what each relation is, and
    'curves' has of each the whole profile delta(epsilon), 'delta_floating_point'
    included, and the trade-off curve: least misses of any test at given false alarms.
    The claim is ('epsilon', 'delta_total'). 'epsilon' is the PLD figure of the claim
    (with a private choice, which has none, the RDP figure), provided that nobody knows
    the noise. 'demonstration_only' is true where somebody may: a release of the ledger
    has a fixed or unknown key; 'epsilon_guaranteed' is infinite then. 'private' is true
    only for a guarantee that holds for all of these patients. An infinite epsilon
    (clipping without noise) is the text 'inf', because JSON has no infinity.

  Raises:
    ValueError: there are releases and delta is not in (0, 1 / num_patients).
  """
  if releases:
    checks.check_delta(delta, num_patients)
  events = [accounting.event(release) for release in releases]
  total = accounting.epsilon(events, delta)
  relations = {
    accounting.RELATION_NAME: total,
    'substitute_one': accounting.epsilon(events, delta, 'substitute_one'),
  }
  old = finite_precision.unnamed(releases)
  float_noise = (FLOAT_NOISE.format(', '.join(sorted(set(old)))),) if old else ()
  extra = {
    name: functools.partial(finite_precision.delta, releases, name)
    for name in relations
  }
  extra_delta = extra[accounting.RELATION_NAME](accounting.claim(total))
  curves = {name: _curves(events, name, extra[name]) for name in relations}
  entries = [
    {
      **{field: release.get(field) for field in RELEASE_FIELDS},
      **{field: release[field] for field in MORE_FIELDS if field in release},
      key_origin.FIELD: key_origin.of_release(release),
      'sampling': sampling(release),
      'epsilon': finite(accounting.claim(accounting.epsilon([event], delta))),
    }
    for release, event in zip(releases, events, strict=True)
  ]
  lot: tuple[str, ...] = ()
  split: dict[str, float] | None = None
  if unprotected_share is not None:
    lot = (demonstration_split.sentence(unprotected_share),)
    split = {'share_unprotected': float(unprotected_share)}
  alone = () if counts_all or not releases else (ALONE,)
  if not is_decided:
    alone = (*alone, UNDECIDED)
  if any('best_of' in release for release in releases):
    assumptions = (*assumptions, CHOICE)
  known_key = key_origin.is_demonstration(releases, randomness)
  claimed = accounting.claim(total)
  holds = bool(releases) and math.isfinite(claimed) and not known_key
  holds = holds and counts_all and is_decided and delta + extra_delta < 1 / num_patients
  return {
    'unit': 'patient',
    'relation': accounting.RELATION_NAME,
    'neighbours': dict(NEIGHBOURS),
    'private': holds and split is None,
    'demonstration_only': known_key,
    'epsilon': finite(claimed),
    'epsilon_guaranteed': 'inf' if known_key else finite(claimed),
    'delta': delta,
    'delta_floating_point': extra_delta,
    'delta_total': delta + extra_delta,
    'num_patients': num_patients,
    'releases': entries,
    'accountants': {name: finite(value) for name, value in total.items()},
    'relations': {
      relation: {name: finite(value) for name, value in figures.items()}
      for relation, figures in relations.items()
    },
    'curves': curves,
    'randomness': key_origin.describe(releases, randomness),
    'assumptions': [*ASSUMPTIONS, *assumptions],
    'counts_all_releases': counts_all,
    'not_covered': [*lot, *alone, *NOT_COVERED, *float_noise, *not_covered],
    'demonstration_split': split,
    'code_version': code_version(),
    'config_sha256': config_sha256,
  }


def _curves(events, relation, extra_delta):
  """The privacy profile and the trade-off curve of one relation as lists of numbers."""
  pairs = [
    (e, min(1.0, d + extra_delta(e))) for e, d in accounting.curve(events, relation)
  ]
  alarms = trade_off.FALSE_ALARMS if pairs else ()
  return {
    'epsilon': [epsilon for epsilon, _ in pairs],
    'delta': [delta for _, delta in pairs],
    'false_alarms': list(alarms),
    'misses': [trade_off.misses(pairs, alarm) for alarm in alarms],
  }


def sampling(release: Mapping[str, Any]) -> str:
  """One sentence: who takes part in a step of this release, and what it amounts to."""
  probability, steps = release['sampling_probability'], release['steps']
  gaussian = f'Gaussian releases of noise multiplier {release["noise_multiplier"]:.6g}'
  if release['mechanism'] == 'truncated_gaussian':
    return (
      f'each of the {release["num_patients"]} patients by a coin of probability '
      f'{probability:.6g} a step; of a draw above {release["max_batch_size"]} a '
      f'uniform subset of that size: {steps} truncated Poisson-sampled {gaussian}'
    )
  if release['mechanism'] == 'banded_gaussian':
    bands = release['num_bands']
    return (
      f'{bands} random groups take turns; each patient of the group whose turn it is, '
      f'by a coin of probability {probability:.6g}; noise correlated by the banded '
      f'strategy, of column norm 1: {-(-steps // bands)} Poisson-sampled {gaussian}'
    )
  found = (
    f'each patient by a coin of probability {probability:.6g} a step: {steps} '
    f'Poisson-sampled {gaussian}'
  )
  if probability == 1:
    found = f'all patients in every step: {steps} {gaussian}'
  if release['mechanism'] == 'best_of_gaussian':
    return (
      'the best, by its own output, of a secret geometric number of runs, '
      f'{release["best_of"]:g} on average, each of them: {found}'
    )
  return found


def write(
  path: str | os.PathLike,
  statement: Mapping[str, Any],
  before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Writes the statement atomically as strict JSON, with the caveats of `carried`.

  Args:
    path: of the file.
    statement: of `build`.
    before: the statement that it replaces, if there is one.

  Returns:
    What was written.

  Raises:
    OSError: the file cannot be written; its old content is intact.
  """
  made = carried(statement, before or {})
  atomic.write_json(path, made)
  return made


def carried(statement: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
  """The statement with what the one before said against the releases it listed.

  A release stays, and so does its model until another has been trained: a seed that
  was fixed, or losses that were logged, are not undone by a run with other settings.

  Args:
    statement: of `build`.
    before: the statement that it replaces, {} if there is none.
  """
  if not before.get('releases'):
    return dict(statement)
  known = {*statement['not_covered'], *NOT_COVERED}
  kept = [text for text in before.get('not_covered', ()) if text not in known]
  made = {**statement, 'not_covered': [*statement['not_covered'], *kept]}
  if _had_fixed_key(before):
    words, earlier = statement['randomness'], str(before.get('randomness'))
    if words in earlier:
      made['randomness'] = earlier
    elif key_origin.FIXED_WORDS not in words:
      made['randomness'] = f'{words}. Of releases before: {earlier}'
    made |= {'private': False, 'demonstration_only': True, 'epsilon_guaranteed': 'inf'}
  return made


def _had_fixed_key(before):
  """Whether a statement lists a release with noise from a fixed seed.

  Statements of older versions say so of all their releases in one sentence.
  """
  origins = [release.get(key_origin.FIELD) for release in before['releases']]
  said = key_origin.FIXED_WORDS in str(before.get('randomness'))
  unsure = any(origin in (None, key_origin.UNKNOWN) for origin in origins)
  return key_origin.FIXED_SEED in origins or (said and unsure)


def finite(value: float) -> float | str:
  """The number, or the text 'inf' where it is infinite (strict JSON has none)."""
  return 'inf' if math.isinf(value) else float(value)


def code_version() -> str:
  """The package version, with the commit if it runs from a git checkout."""
  version = ldm_jax.__version__
  root = pathlib.Path(__file__).resolve().parent.parent.parent
  if not (root / '.git').exists():
    return version
  describe = ['git', '-C', str(root), 'describe', '--always', '--dirty', '--abbrev=12']
  try:
    done = subprocess.run(describe, capture_output=True, text=True, timeout=10)
  except (OSError, subprocess.TimeoutExpired):
    return version
  return f'{version}+{done.stdout.strip()}' if done.returncode == 0 else version
