"""Laws of the origin of noise keys: one fixed key, and the ledger protects nobody.

The attack: two runs with a fixed seed, then one with a key of the operating system, in
one ledger. The last statement must not claim what the first two have given away.
"""

import itertools
import json

import pytest

from ldm_jax.privacy import key_origin, privacy_json, releases, secret_key
from ldm_jax.privacy.ledger import Ledger, release_id
from ldm_jax.report import index_page, model_card
from ldm_jax.report.privacy_statement import statement

KINDS = {
  'adapt: full fine-tuning': {'sampling_probability': 0.1, 'steps': 10},
  'latent mean, for a drift': {},
  'attribute marginals': {},
}


def record(book, run, origin, name='adapt: full fine-tuning'):
  made = {**releases.planned(name, 3.0, 1.0), **KINDS[name]}
  made['id'] = release_id(run, made)
  if origin is not None:
    made[key_origin.FIELD] = origin
  book.record(made)


def stated(book, path, seed):
  """privacy.json as a run with this seed writes it over the one before."""
  before = json.loads(path.read_text()) if path.is_file() else None
  made = book.statement(
    delta=1e-5,
    num_patients=100,
    randomness=secret_key.describe_randomness(seed),
    config_sha256='ab' * 32,
  )
  return privacy_json.write(path, made, before)


def claims_nothing(made):
  said = statement(made)
  assert made['private'] is False and made['demonstration_only'] is True
  assert made['epsilon_guaranteed'] == 'inf'
  assert 0 < made['epsilon'] < 20, 'what the accountants find can still be read'
  assert not said.private and said.bounds is None
  page = index_page.html({'privacy': made})
  card = model_card.markdown({'privacy': made})
  assert 'class="notice good"' not in page
  for text in (page, card):
    assert 'Demonstration only' in text
    assert 'is protected by differential privacy' not in text
    assert 'at most' not in text.split('What is protected')[1]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('keep', [True, False])
def test_a_later_key_of_the_operating_system_launders_no_fixed_one(
  tmp_path, kind, keep
):
  book, path = Ledger(tmp_path / 'private.jsonl'), tmp_path / 'privacy.json'
  for run, seed in (('one', 0), ('two', 0), ('three', None)):
    name = kind if seed == 0 else 'adapt: full fine-tuning'
    record(book, run, key_origin.of_seed(seed), name)
    made = stated(book, path, seed)
    claims_nothing(made)
    if not keep:
      path.unlink()  # another work folder with the same ledger
  assert f'FIXED SEED in 2 of 3 releases ({kind})' in made['randomness']
  assert [entry['randomness'] for entry in made['releases']] == [
    *['fixed seed'] * 2,
    'operating system',
  ]


@pytest.mark.parametrize(
  'origins', itertools.product(['operating system', 'fixed seed', None], repeat=2)
)
def test_only_a_ledger_whose_keys_all_come_from_the_system_is_private(
  tmp_path, origins
):
  book, path = Ledger(tmp_path / 'private.jsonl'), tmp_path / 'privacy.json'
  for number, origin in enumerate(origins):
    record(book, f'run {number}', origin)
  made = stated(book, path, None)
  if set(origins) == {'operating system'}:
    assert made['private'] and not made['demonstration_only']
    assert made['epsilon_guaranteed'] == made['epsilon']
    assert statement(made).private
    assert made['randomness'] == secret_key.describe_randomness()
  else:
    claims_nothing(made)


def test_a_statement_of_an_older_version_is_believed_only_against_itself(tmp_path):
  """It named one key for all releases, and could forget a fixed one."""
  book, path = Ledger(tmp_path / 'private.jsonl'), tmp_path / 'privacy.json'
  record(book, 'old', None)
  new = ('private', 'demonstration_only', 'epsilon_guaranteed')
  for seed in (None, 0):
    path.unlink(missing_ok=True)
    old = {k: v for k, v in stated(book, path, seed).items() if k not in new}
    old['releases'] = [
      {k: v for k, v in entry.items() if k != 'randomness'} for entry in old['releases']
    ]
    old['randomness'] = secret_key.describe_randomness(seed)
    assert not statement(old).private
    made = privacy_json.write(path, stated(book, path, None), old)
    claims_nothing(made)
    assert ('FIXED SEED' in made['randomness']) == (seed == 0)
    assert 'UNKNOWN KEY in 1 of 1 releases' in made['randomness']


def test_a_run_that_will_use_a_fixed_key_is_called_so_before_its_release(tmp_path):
  book, path = Ledger(tmp_path / 'private.jsonl'), tmp_path / 'privacy.json'
  assert stated(book, path, 0)['demonstration_only']
  record(book, 'one', 'operating system')
  assert stated(book, path, 0)['private'] is False
  assert stated(book, path, None)['private'] is True, 'it has released nothing'


def test_no_release_is_no_guarantee_and_no_noise_is_infinite(tmp_path):
  book, path = Ledger(tmp_path / 'private.jsonl'), tmp_path / 'privacy.json'
  assert stated(book, path, None)['private'] is False
  record(book, 'one', 'operating system')
  made = {**releases.planned('adapt', 1.0, 1.0), 'noise_multiplier': 0.0}
  book.record({**made, 'id': 'plain', 'randomness': 'none'})
  made = stated(book, path, None)
  assert made['epsilon_guaranteed'] == 'inf' and made['private'] is False
  assert not made['demonstration_only'], 'no key is to blame'


def test_an_origin_that_does_not_exist_is_not_recorded(tmp_path):
  with pytest.raises(ValueError, match=r"'fixed seed'.*got 'dice'"):
    record(Ledger(tmp_path / 'private.jsonl'), 'run', 'dice')


def test_the_origin_is_no_part_of_the_id_of_a_release():
  made = releases.planned('adapt', 3.0, 1.0)
  assert release_id('run', made) == release_id('run', {**made, 'randomness': 'none'})
