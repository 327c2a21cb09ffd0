"""The privacy statement in words: privacy.json -> what a data-protection officer reads.

[Kairouz15] Kairouz, Oh, Viswanath, The composition theorem for differential privacy,
ICML 2015 (Theorem 2.1: the region of an attacker's two errors).
[Dwork06] Dwork et al., Our data, ourselves, EUROCRYPT 2006 ((epsilon, delta)).
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from ldm_jax.data import demonstration_split
from ldm_jax.privacy import accounting, key_origin
from ldm_jax.report.wording import is_number, number, percent

# Where the trade-off curve is sampled: a bound at epsilon = 10 is empty at delta = 1e-5
# and says something at delta = 0.3.
PROFILE_DELTAS = (1e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
DEMONSTRATION_WORDS = (
  'demonstration',
  'predictable',
  'fixed',
  'not from the operating',
)
NOTHING = (
  'Nothing. Whoever knows the key of a release subtracts its noise, and no later '
  'release takes back what that one tells about a {unit}.'
)
ACCOUNTED = (
  'ε = {epsilon} and δ = {delta} are what the accountants find for noise that nobody '
  'can predict. They show that the accounting works; they bound nothing here. As a '
  'guarantee, ε is infinite.'
)


@dataclasses.dataclass(frozen=True)
class Statement:
  """What the report and the model card say about privacy.

  Attributes:
    private: false when the model carries no guarantee.
    headline: one sentence.
    warnings: sentences that must not be overlooked.
    sections: tuple of (heading, tuple of paragraphs).
    releases: tuple of dicts, one per private release.
    bounds: of `attack_bounds`, or None without a guarantee.
  """

  private: bool
  headline: str
  warnings: tuple = ()
  sections: tuple = ()
  releases: tuple = ()
  bounds: dict | None = None


def attack_bounds(
  epsilon: float, delta: float, profile: Iterable[tuple[float, float]] = ()
) -> dict[str, float]:
  """What any membership attack can reach at most. [Kairouz15] Theorem 2.1

  The attacker knows everything except whether one given patient took part, with
  even prior odds. Any (epsilon, delta) pair that holds gives a bound; the smallest
  counts.

  Args:
    epsilon: privacy loss.
    delta: probability that the loss may exceed it.
    profile: further (epsilon, delta) pairs that hold for the same releases.

  Returns:
    dict accuracy (share of right guesses, 0.5 is blind), advantage (true minus
    false positive rate), detection (true positive rate at 1 % false alarms).
  """
  accuracy = detection = 1.0
  for eps, d in ((epsilon, delta), *profile):
    # 1 - (1 - d) / (1 + e^eps), written so that a large epsilon does not overflow.
    accuracy = min(accuracy, 1 - (1 - d) * math.exp(-eps) / (1 + math.exp(-eps)))
    grown = math.inf if eps > 50 else math.exp(eps) * 0.01 + d
    detection = min(detection, grown, 1 - math.exp(-eps) * (1 - d - 0.01))
  return {
    'accuracy': accuracy,
    'advantage': 2 * accuracy - 1,
    'detection': max(0.01, detection),
  }


def trade_off(privacy: Mapping) -> tuple[tuple[float, float], ...]:
  """Further (epsilon, delta) pairs that hold, recomputed from the releases.

  Args:
    privacy: privacy.json.

  Returns:
    tuple of (epsilon, delta), empty when the releases cannot be read; a bound from
    fewer pairs is looser, never wrong.
  """
  try:
    events = [accounting.event(release) for release in privacy['releases']]
    pairs = [(accounting.epsilon(events, d)['pld'], d) for d in PROFILE_DELTAS]
  except (KeyError, TypeError, ValueError, ArithmeticError):
    return ()
  return tuple(pair for pair in pairs if events and math.isfinite(pair[0]))


def demonstration_only(privacy: Mapping) -> bool:
  """True when noise of any release was drawn from a key that is or may be known.

  A statement of an older version, which does not say of each release how its key was
  made, is one of them: it may have forgotten a release with a fixed seed.
  """
  releases = privacy.get('releases') or ()
  if privacy.get('demonstration_only') or key_origin.is_demonstration(releases, ''):
    return True
  if privacy.get('demonstration_only') is not None:
    return False
  randomness = privacy.get('randomness')
  if isinstance(randomness, dict):
    if randomness.get('fixed') is not None:
      return bool(randomness['fixed'])
    randomness = ' '.join(str(value) for value in randomness.values())
  text = str(randomness or '').lower()
  return any(word in text for word in DEMONSTRATION_WORDS)


def demonstration_warning(privacy: Mapping | None) -> str:
  """The warning of a demonstration split, '' where privacy.json tells of none."""
  found = (privacy or {}).get('demonstration_split')
  return demonstration_split.sentence(found['share_unprotected']) if found else ''


def statement(privacy: Mapping | None) -> Statement:
  """Puts privacy.json into words: dict or None -> Statement."""
  privacy = privacy or {}
  epsilon = privacy.get('epsilon')
  releases = tuple(privacy.get('releases') or ())
  if not is_number(epsilon) or not math.isfinite(epsilon) or not releases:
    return _without_guarantee(releases, demonstration_warning(privacy))
  delta = float(privacy.get('delta') or 0.0)
  unit = str(privacy.get('unit', 'patient'))
  num_patients = privacy.get('num_patients')
  known_key, split = demonstration_only(privacy), demonstration_warning(privacy)
  bounds = attack_bounds(float(epsilon), delta, trade_off(privacy))
  headline = (
    f'Each {unit} of the private cohort is protected by differential privacy with '
    f'ε = {number(float(epsilon))} and δ = {number(delta)}.'
  )
  if known_key:
    headline = (
      f'Demonstration only: no {unit} is protected, because noise of this run or of an '
      'earlier one on the same cohort can be reproduced.'
    )
  warnings = _warnings(privacy, delta, num_patients, unit, known_key)
  if split:
    headline, _, rest = split.partition('. ')
    headline += '.'
    held = 'What follows holds for the private part of the split alone.'
    warnings = (f'{rest} {held}', *warnings)
  return Statement(
    private=not known_key and not split,
    headline=headline,
    warnings=warnings,
    sections=(
      (
        'What is protected',
        (NOTHING.format(unit=unit),)
        if known_key
        else _protected(privacy, unit, num_patients),
      ),
      (
        'What the two numbers mean',
        (ACCOUNTED.format(epsilon=number(float(epsilon)), delta=number(delta)),)
        if known_key
        else _meaning(bounds, float(epsilon), delta, unit),
      ),
      ('What was released', _released(privacy, known_key)),
      ('How the randomness was drawn', _randomness(privacy, known_key)),
      ('What the guarantee rests on', _listed(privacy.get('assumptions'))),
      ('What is not covered', _not_covered(privacy)),
    ),
    releases=releases,
    bounds=None if known_key or split else bounds,
  )


def _without_guarantee(releases, split=''):
  return Statement(
    private=False,
    headline='This model is NOT private.',
    warnings=(
      *((split,) if split else ()),
      'It was made without a differential privacy guarantee. Where it was trained on '
      'patients’ scans, its parameters and its samples may reveal who they were: '
      'treat the model, the samples and this report as confidentially as the scans, '
      'unless all of these were public.',
    ),
    releases=releases,
  )


def _warnings(privacy, delta, num_patients, unit, demonstration):
  warnings = []
  if demonstration:
    warnings.append(
      'Demonstration only. Noise that should protect these patients was drawn from a '
      'fixed or unknown key: whoever knows the key can subtract it, and epsilon as a '
      'guarantee is infinite. Do not release this model. A later run with another key '
      'does not change this: start in a new work folder and ledger with a key from the '
      'operating system.'
    )
  if is_number(num_patients) and num_patients > 0 and delta * num_patients >= 1:
    warnings.append(
      f'δ = {number(delta)} is not smaller than one in the number of {unit}s '
      f'({number(num_patients)}): a mechanism with this δ could publish one '
      f'{unit} outright. Choose a smaller δ.'
    )
  accountants = privacy.get('accountants') or {}
  values = [v for v in accountants.values() if is_number(v) and math.isfinite(v)]
  if values and min(values) > float(privacy['epsilon']) * 1.001:
    warnings.append(
      'The accountants find a larger ε than the one stated: '
      + ', '.join(f'{k.upper()} {number(v)}' for k, v in accountants.items())
      + '. Do not rely on the stated value.'
    )
  return tuple(warnings)


def _protected(privacy, unit, num_patients):
  relation = {
    'add_or_remove_one': f'with or without any one {unit}',
    'replace_one': f'with any one {unit} exchanged for another',
  }.get(privacy.get('relation'), f'of neighbouring cohorts ({privacy.get("relation")})')
  first = (
    f'The unit of protection is the {unit}: all volumes, visits and attributes of one '
    f'{unit} together. The released model would have come out nearly as likely '
    f'{relation}. This holds against an attacker who knows every other {unit}, the '
    'code and the settings, computes whatever he likes short of guessing the noise key '
    'of 64 bits, and inspects the model itself or any number of samples. It cannot be '
    'undone by later use.'
  )
  if not is_number(num_patients):
    return (first,)
  return (
    first,
    f'The private cohort has {number(num_patients)} {unit}s. That number is treated '
    'as public.',
  )


def _meaning(bounds, epsilon, delta, unit):
  factor = f'at most {number(math.exp(epsilon))}' if epsilon < 50 else 'enormously'
  paragraphs = [
    f'ε = {number(epsilon)} bounds how much any conclusion about a {unit} can change '
    f'because of taking part: its odds grow or shrink by a factor of {factor}. '
    f'δ = {number(delta)} is the allowance for failure of that bound: about one '
    f'chance in {number(round(1 / delta)) if delta > 0 else "infinitely many"}.',
    f'Concretely: somebody who tries to find out whether a given {unit} took part, '
    f'with even odds beforehand, is right in at most {percent(bounds["accuracy"])} of '
    'cases, whatever method is used (50 % is blind guessing); the advantage over '
    f'guessing (true minus false positive rate) is at most '
    f'{percent(bounds["advantage"])}. If the attacker accepts 1 % false alarms, at '
    f'most {percent(bounds["detection"])} of the participants can be recognised.',
  ]
  if bounds['accuracy'] > 0.7:
    paragraphs.append(
      'These are worst-case limits, and here they are wide: taken alone they do not '
      'rule out a successful attack. What protects in practice is that known '
      'attacks stay far below the limit; the memorisation check of this report '
      'is evidence of that, not proof. An ε of about 1 or less gives limits that '
      'are strong by themselves.'
    )
  return tuple(paragraphs)


def _released(privacy, known_key):
  count = len(privacy['releases'])
  words = 'One quantity was' if count == 1 else f'{count} quantities were'
  paragraphs = [
    f'{words} computed from private scans and released after calibrated noise was '
    'added (table below). From the table any reader can '
    'recompute ε.'
  ]
  sampled = [release for release in privacy['releases'] if release.get('sampling')]
  paragraphs += [f'{each.get("name")}: {each["sampling"]}.' for each in sampled]
  accountants = privacy.get('accountants') or {}
  if accountants:
    listed = ', '.join(f'{k.upper()}: {number(v)}' for k, v in accountants.items())
    paragraphs.append(f'Total ε by independent accountants: {listed}.')
  figures = (privacy.get('relations') or {}).get('substitute_one') or {}
  if figures and not known_key:
    listed = ', '.join(
      f'{name.upper()}: {number(float(value))}' for name, value in figures.items()
    )
    unit = privacy.get('unit', 'patient')
    paragraphs.append(
      f'Under the stricter relation that one {unit} is exchanged for another, the '
      f'number staying the same, ε at the same δ is {listed}. The claim above is for '
      f'one {unit} added or removed.'
    )
  return tuple(paragraphs)


def _randomness(privacy, demonstration):
  randomness = privacy.get('randomness')
  if isinstance(randomness, dict):
    randomness = '; '.join(f'{k}: {v}' for k, v in randomness.items())
  drawn = f'Recorded source: {randomness}.' if randomness else 'No source is recorded.'
  needed = 'The guarantee needs noise that nobody can predict'
  return (drawn, needed + ('; not all noise here is such.' if demonstration else '.'))


def _not_covered(privacy):
  listed = _listed(privacy.get('not_covered'))
  population = (
    'findings about the population as a whole (for example that hearts grow with '
    'body size): they are what the model is meant to learn, and are not hidden'
  )
  internal = 'figures and pictures marked “internal”, made from private scans'
  mentioned = any('internal' in entry for entry in listed)
  return (*listed, population) if mentioned else (*listed, internal, population)


def _listed(entries):
  if isinstance(entries, str):
    entries = [entries]
  return tuple(str(entry) for entry in entries or ()) or ('Nothing is recorded.',)
