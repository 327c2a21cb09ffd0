"""Laws of privacy.json: the contract's keys, recomputable, strict JSON."""

import json

import dp_accounting
import pytest
from dp_accounting import pld

from ldm_jax.privacy import finite_precision, mechanisms, privacy_json, secret_key
from ldm_jax.privacy.ledger import Ledger, release_id

KEYS = {
  'counts_all_releases',
  'curves',
  'neighbours',
  'unit',
  'relation',
  'private',
  'demonstration_only',
  'epsilon',
  'epsilon_guaranteed',
  'delta',
  'delta_floating_point',
  'delta_total',
  'num_patients',
  'releases',
  'accountants',
  'demonstration_split',
  'relations',
  'randomness',
  'assumptions',
  'not_covered',
  'code_version',
  'config_sha256',
}
RELEASE_KEYS = {
  'name',
  'mechanism',
  'noise_multiplier',
  'sampling_probability',
  'steps',
  'clip_norm',
  'noise',
  'sampling',
  'randomness',
  'epsilon',
}


def make_statement(ledger, **changes):
  details = {
    'delta': 1e-5,
    'num_patients': 1000,
    'randomness': secret_key.describe_randomness(),
    'config_sha256': 'ab' * 32,
    **changes,
  }
  return ledger.statement(**details)


def fill(ledger, sigmas):
  for sigma in sigmas:
    scheme = mechanisms.Poisson(
      num_patients=1000,
      batch_size=100,
      steps=100,
      clip_norm=0.5,
      noise_multiplier=sigma,
    )
    release = scheme.release(f'adapt {sigma}')
    ledger.record(
      {**release, 'id': release_id('run', release), 'randomness': 'operating system'}
    )


def test_the_statement_has_the_keys_of_the_contract(tmp_path):
  ledger = Ledger(tmp_path / 'private.jsonl')
  fill(ledger, [2.0, 3.0])
  made = make_statement(ledger, assumptions=['x'], not_covered=['y'])
  assert set(made) == KEYS
  assert all(set(release) == RELEASE_KEYS for release in made['releases'])
  assert made['unit'] == 'patient'
  assert made['relation'] == 'add_or_remove_one'
  assert set(made['accountants']) == {'pld', 'rdp'}
  assert made['epsilon'] == made['accountants']['pld'] <= made['accountants']['rdp']
  assert 'x' in made['assumptions'] and 'y' in made['not_covered']
  assert made['code_version'].startswith('0.')
  assert set(made['relations']) == {'add_or_remove_one', 'substitute_one'}
  exchanged = made['relations']['substitute_one']
  assert made['epsilon'] < exchanged['pld'] <= exchanged['rdp']
  assert 'probability 0.1' in made['releases'][0]['sampling']


def test_any_reader_recomputes_epsilon_from_the_file(tmp_path):
  ledger = Ledger(tmp_path / 'private.jsonl')
  fill(ledger, [2.0, 3.0])
  privacy_json.write(tmp_path / 'privacy.json', make_statement(ledger))
  read = json.loads((tmp_path / 'privacy.json').read_text())
  accountant = pld.PLDAccountant()
  for release in read['releases']:
    noise = dp_accounting.GaussianDpEvent(release['noise_multiplier'])
    sampled = dp_accounting.PoissonSampledDpEvent(
      release['sampling_probability'], noise
    )
    accountant.compose(sampled, release['steps'])
  assert accountant.get_epsilon(read['delta']) == pytest.approx(
    read['epsilon'], rel=2e-3
  )
  assert read['epsilon'] > max(release['epsilon'] for release in read['releases'])


def test_an_empty_ledger_states_epsilon_zero(tmp_path):
  made = make_statement(Ledger(tmp_path / 'private.jsonl'), num_patients=0)
  assert made['epsilon'] == 0
  assert made['releases'] == []
  assert set(made) == KEYS


def test_clipping_without_noise_is_stated_as_infinite_in_strict_json(tmp_path):
  ledger = Ledger(tmp_path / 'private.jsonl')
  clip_only = {
    'id': 'run',
    'name': 'adapt',
    'mechanism': 'gaussian',
    'noise_multiplier': 0.0,
    'sampling_probability': 0.1,
    'steps': 100,
  }
  ledger.record(clip_only)
  privacy_json.write(tmp_path / 'privacy.json', make_statement(ledger))
  read = json.loads(
    (tmp_path / 'privacy.json').read_text(), parse_constant=lambda name: 1 / 0
  )
  assert read['epsilon'] == read['releases'][0]['epsilon'] == 'inf'


def test_a_fixed_seed_is_named_in_the_statement(tmp_path):
  made = make_statement(
    Ledger(tmp_path / 'private.jsonl'), randomness=secret_key.describe_randomness(7)
  )
  assert 'FIXED SEED 7' in made['randomness']


def test_a_delta_above_one_over_the_patients_is_refused(tmp_path):
  ledger = Ledger(tmp_path / 'private.jsonl')
  fill(ledger, [2.0])
  with pytest.raises(ValueError, match='1/num_patients'):
    make_statement(ledger, delta=1e-2)


def test_a_later_statement_keeps_what_was_said_against_earlier_releases(tmp_path):
  """A fixed seed or logged losses are not undone by a run with other settings."""
  path = tmp_path / 'privacy.json'
  release = [{'name': 'adapt'}]
  first = {
    'releases': release,
    'randomness': secret_key.describe_randomness(0),
    'not_covered': ['losses were logged', *privacy_json.NOT_COVERED],
  }
  later = {
    'releases': release * 2,
    'randomness': secret_key.describe_randomness(),
    'not_covered': list(privacy_json.NOT_COVERED),
  }
  write = lambda content, before: privacy_json.write(path, content, before)
  read = lambda: json.loads(path.read_text())
  write(later, {**first, 'releases': []})
  assert read() == later, 'there was no release to speak against'
  write(later, first)
  said = read()
  assert said['releases'] == later['releases']
  assert said['demonstration_only'] is True and said['private'] is False
  for words in (first['randomness'], later['randomness']):
    assert said['randomness'].count(words) == 1
  assert sorted(said['not_covered']) == sorted(first['not_covered'])
  write(later, said)
  assert read() == said, 'said twice'
  write({**first, 'releases': release * 3}, said)
  assert read()['randomness'] == said['randomness']


def test_the_term_of_finite_precision_is_part_of_delta_and_old_noise_is_named(tmp_path):
  """The term follows from the releases as the statement lists them."""
  ledger = Ledger(tmp_path / 'ledger.jsonl')
  fill(ledger, [2.0])
  made = make_statement(ledger)
  term = made['delta_floating_point']
  assert term == finite_precision.delta(made['releases']) > 0
  assert made['delta_total'] == made['delta'] + term < 1.001 * made['delta']
  assert not any('earlier version' in words for words in made['not_covered'])
  (release,) = ledger.releases()
  quiet = {**release, 'noise_multiplier': 0.11, 'id': 'quiet'}
  ledger.record(quiet)
  assert make_statement(ledger)['delta_floating_point'] > 1e-3
  assert make_statement(ledger)['private'] is False, 'delta is at least 1/N'
  del release['noise']
  ledger.record({**release, 'id': 'old', 'name': 'training of old'})
  words = ' '.join(make_statement(ledger)['not_covered'])
  assert 'earlier version (training of old)' in words
