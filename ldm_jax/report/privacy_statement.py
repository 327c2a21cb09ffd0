"""The privacy statement in words: privacy.json -> what a data-protection officer reads.

[Dwork06] Dwork et al., Our data, ourselves, EUROCRYPT 2006 ((epsilon, delta)).
"""

import dataclasses
import math
from collections.abc import Mapping

from ldm_jax.data import demonstration_split
from ldm_jax.privacy import accounting, key_origin
from ldm_jax.privacy.trade_off import attack_bounds
from ldm_jax.report.wording import is_number, number, percent

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
    bounds: of `trade_off.attack_bounds` under zero-out, or None without a guarantee.
    substitution: the same where the attacker knows N and everybody else, and asks which
      of two persons took part; None where the releases do not tell.
  """

  private: bool
  headline: str
  warnings: tuple = ()
  sections: tuple = ()
  releases: tuple = ()
  bounds: dict | None = None
  substitution: dict | None = None


def trade_off(privacy: Mapping) -> tuple[tuple[float, float], ...]:
  """Further (epsilon, delta) pairs that hold, recomputed from the releases.

  Args:
    privacy: privacy.json.

  Returns:
    tuple of (epsilon, delta), empty when the releases cannot be read; a bound from
    fewer pairs is looser, never wrong.
  """
  return _recomputed(privacy, accounting.RELATION_NAME)


def _recomputed(privacy, relation):
  try:
    events = [accounting.event(release) for release in privacy['releases']]
    return accounting.curve(events, relation)
  except (KeyError, TypeError, ValueError, ArithmeticError):
    return ()


def bounds_of(privacy: Mapping, relation: str) -> dict[str, float] | None:
  """`attack_bounds` of a statement under one relation, from its curve or releases.

  None where neither gives a pair.
  """
  curve = (privacy.get('curves') or {}).get(relation) or {}
  pairs = tuple(zip(curve.get('epsilon') or (), curve.get('delta') or (), strict=True))
  extra = float(privacy.get('delta_floating_point') or 0.0)
  is_claimed = relation == accounting.RELATION_NAME
  if not pairs:
    found = trade_off(privacy) if is_claimed else _recomputed(privacy, relation)
    pairs = tuple((e, min(1.0, d + extra)) for e, d in found)
  if is_claimed:
    claimed = float(privacy['epsilon']), float(privacy.get('delta') or 0.0) + extra
    pairs = (claimed, *pairs)
  return attack_bounds(*pairs[0], pairs[1:]) if pairs else None


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
  delta = float(privacy.get('delta_total') or privacy.get('delta') or 0.0)
  unit = str(privacy.get('unit', 'patient'))
  num_patients = privacy.get('num_patients')
  known_key, split = demonstration_only(privacy), demonstration_warning(privacy)
  bounds = bounds_of(privacy, accounting.RELATION_NAME)
  exchanged = bounds_of(privacy, 'substitute_one')
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
        else _meaning(bounds, exchanged, float(epsilon), delta, unit),
      ),
      ('What was released', _released(privacy, known_key)),
      ('How the randomness was drawn', _randomness(privacy, known_key)),
      ('What the guarantee rests on', _listed(privacy.get('assumptions'))),
      ('What is not covered', _not_covered(privacy)),
    ),
    releases=releases,
    bounds=None if known_key or split else bounds,
    substitution=None if known_key or split else exchanged,
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
    'add_or_remove_one': f'whether the record of any one {unit} holds data or is empty',
    'replace_one': f'with any one {unit} exchanged for another',
  }.get(privacy.get('relation'), f'of neighbouring cohorts ({privacy.get("relation")})')
  first = (
    f'The unit of protection is the {unit}: all volumes, visits and attributes of one '
    f'{unit} together. The released model would have come out nearly as likely '
    f'{relation}, the number of {unit}s staying the same (zero-out, replace-special). '
    f'This holds against an attacker who knows every other {unit} and their number, '
    'the code and the settings, computes whatever he likes short of guessing the noise '
    'key of 64 bits, and inspects the model itself or any number of samples. It cannot '
    'be undone by later use.'
  )
  if not is_number(num_patients):
    return (first,)
  return (
    first,
    f'The private cohort has {number(num_patients)} {unit}s. That number is treated '
    'as public.',
  )


def _meaning(bounds, exchanged, epsilon, delta, unit):
  factor = f'at most {number(math.exp(epsilon))}' if epsilon < 50 else 'enormously'
  paragraphs = [
    f'ε = {number(epsilon)} bounds how much any conclusion about a {unit} can change '
    f'because of taking part: its odds grow or shrink by a factor of {factor}. '
    f'δ = {number(delta)} is the allowance for failure of that bound: about one '
    f'chance in {number(round(1 / delta)) if delta > 0 else "infinitely many"}.',
    f'Concretely: somebody who knows all other {unit}s, and asks whether a given '
    f'{unit} took part or an empty record in that place, with even odds beforehand, is '
    f'right in at most {percent(bounds["accuracy"])} of cases, whatever method is used '
    '(50 % is blind guessing); the advantage over guessing (true minus false positive '
    f'rate) is at most {percent(bounds["advantage"])}. If the attacker accepts 1 % '
    f'false alarms, at most {percent(bounds["detection"])} of the participants can be '
    'recognised.',
  ]
  if exchanged:
    paragraphs.append(
      f'Real attackers know more: the number of {unit}s is public, so whoever knows '
      f'all others knows that somebody has the last place. If he asks which of two '
      f'{unit}s it is, he is right in at most {percent(exchanged["accuracy"])} of '
      f'cases, with an advantage of at most {percent(exchanged["advantage"])}, and '
      f'recognises at most {percent(exchanged["detection"])} at 1 % false alarms. This '
      'is the number to judge a membership attack by.'
    )
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
      f'the record of one {unit} emptied (zero-out).'
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
