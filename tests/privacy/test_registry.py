"""Laws of the registry: one cohort has one budget, whatever the work folder."""

import json
import multiprocessing
import stat

import pytest

from ldm_jax.privacy import accounting
from ldm_jax.privacy.ledger import Ledger, release_id
from ldm_jax.privacy.registry import FILE, SALT, Registry, default_folder

PATIENTS = ('ann', 'bob', 'cid')


def release(run, sigma=1.0):
  made = {
    'name': 'adapt',
    'mechanism': 'gaussian',
    'noise_multiplier': sigma,
    'sampling_probability': 1.0,
    'steps': 1,
    'clip_norm': 1.0,
    'run': run,
  }
  return {**made, 'id': release_id(run, made)}


def ledger(root, folder, patients=PATIENTS, dataset=''):
  return Ledger(root / folder / 'ledger.jsonl', patients, Registry(root / 'r', dataset))


ONE = accounting.epsilon([accounting.event(release('x'))], 1e-5)['pld']
BUDGET = (1.2 * ONE, 1e-5)


def test_a_second_work_folder_on_the_same_patients_does_not_begin_at_zero(tmp_path):
  first, second = ledger(tmp_path, 'a'), ledger(tmp_path, 'b')
  first.record(release('a'), BUDGET)
  assert second.epsilon(1e-5)['pld'] == pytest.approx(ONE)
  with pytest.raises(ValueError, match=r'other work folders.*ledger\.dataset'):
    second.record(release('b'), BUDGET)
  assert second.own_releases() == [] and len(second.releases()) == 1
  assert not second.path.exists()
  assert len(second.statement(**DETAILS)['releases']) == 1


DETAILS = {'delta': 1e-5, 'num_patients': 9, 'randomness': '', 'config_sha256': ''}


def test_one_patient_in_common_is_enough_and_none_is_none(tmp_path):
  ledger(tmp_path, 'a').record(release('a'))
  overlapping = ledger(tmp_path, 'b', ('cid', 'dan'))
  assert [each['run'] for each in overlapping.releases()] == ['a']
  assert ledger(tmp_path, 'c', ('dan', 'eve')).releases() == []
  # The overlap counts for everybody in it, and is passed on to neither side's others.
  overlapping.record(release('b'))
  assert [each['run'] for each in ledger(tmp_path, 'd', ('eve',)).releases()] == []
  both = ledger(tmp_path, 'e', ('cid',)).releases()
  assert [each['run'] for each in both] == ['a', 'b']


def test_equal_identifiers_of_another_data_set_are_told_apart_by_its_name(tmp_path):
  ledger(tmp_path, 'a').record(release('a'))
  assert ledger(tmp_path, 'b', dataset='site B').releases() == []


def test_a_registry_of_another_name_does_not_begin_at_zero(tmp_path):
  ledger(tmp_path, 'a').record(release('a'))
  named = Registry(tmp_path / 'named', '', tmp_path / 'r')
  second = Ledger(tmp_path / 'b' / 'ledger.jsonl', PATIENTS, named)
  assert [each['run'] for each in second.releases()] == ['a']
  with pytest.raises(ValueError, match='other work folders'):
    second.record(release('b'), BUDGET)
  second.record(release('b'))
  assert [each['run'] for each in second.releases()] == ['b', 'a']
  assert len((tmp_path / 'r' / FILE).read_text().splitlines()) == 1
  assert Registry(tmp_path / 'r', '', tmp_path / 'r').read_too is None


def test_a_release_is_counted_once_in_ledgers_that_share_it(tmp_path):
  first = ledger(tmp_path, 'a')
  assert first.record(release('a')) and not first.record(release('a'))
  copy = ledger(tmp_path, 'b')
  copy.path.parent.mkdir()
  copy.path.write_bytes(first.path.read_bytes())
  assert len(copy.releases()) == len(first.releases()) == 1
  assert len((tmp_path / 'r' / FILE).read_text().splitlines()) == 1


def test_a_ledger_of_before_is_registered_by_its_next_release(tmp_path):
  old = ledger(tmp_path, 'a')
  Ledger(old.path, PATIENTS).record(release('old'))
  assert ledger(tmp_path, 'b').releases() == []
  old.record(release('new'))
  assert {r['run'] for r in ledger(tmp_path, 'b').releases()} == {'old', 'new'}


def test_a_run_that_was_killed_between_registry_and_ledger_is_counted_once(tmp_path):
  book = ledger(tmp_path, 'a')
  with book.registry.locked():
    book.registry.add(PATIENTS, [release('a')])
  assert book.own_releases() == []
  assert book.record(release('a'), BUDGET), 'its own release stood in its way'
  assert len(book.releases()) == 1


def test_runs_without_noise_stay_in_their_own_ledger(tmp_path):
  ledger(tmp_path, 'a').record(release('a', sigma=0.0))
  assert ledger(tmp_path, 'b').releases() == []


def test_no_name_can_be_read_or_tested_without_the_salt(tmp_path):
  ledger(tmp_path, 'a').record(release('a'))
  text = (tmp_path / 'r' / FILE).read_text()
  assert not any(name in text for name in PATIENTS)
  for name in (FILE, SALT):
    mode = stat.S_IMODE((tmp_path / 'r' / name).stat().st_mode)
    assert mode == 0o600, name
  (tmp_path / 'r' / SALT).unlink()
  with pytest.raises(ValueError, match='damaged'):
    ledger(tmp_path, 'b').releases()


@pytest.mark.parametrize('text', ['nonsense\n', '{}\n', '{"release": {}}\n'])
def test_a_damaged_registry_stops_everything(tmp_path, text):
  ledger(tmp_path, 'a').record(release('a'))
  with open(tmp_path / 'r' / FILE, 'a') as file:
    file.write(text)
  with pytest.raises(ValueError, match=r'damaged.*line 2'):
    ledger(tmp_path, 'b').record(release('b'))


def test_a_registry_that_cannot_be_written_says_what_to_set(tmp_path):
  (tmp_path / 'r').write_text('a file')
  with pytest.raises(ValueError, match=r'--config\.ledger\.registry'):
    ledger(tmp_path, 'a').record(release('a'))
  assert not (tmp_path / 'a' / 'ledger.jsonl').exists()


def spend(root, folder, start, results):
  start.wait()
  try:
    ledger(root, folder).record(release(folder), BUDGET)
    results.put('spent')
  except ValueError as error:
    results.put(str(error))


def test_two_processes_cannot_both_spend_the_same_remainder(tmp_path):
  context = multiprocessing.get_context('fork')
  start, results = context.Barrier(2), context.Queue()
  runs = [
    context.Process(target=spend, args=(tmp_path, folder, start, results))
    for folder in 'ab'
  ]
  for run in runs:
    run.start()
  found = [results.get(timeout=120) for _ in runs]
  for run in runs:
    run.join()
  assert found.count('spent') == 1
  assert any('would bring these patients' in words for words in found)
  lines = (tmp_path / 'r' / FILE).read_text().splitlines()
  assert len(lines) == 1 and json.loads(lines[0])['release']['name'] == 'adapt'


def test_the_default_folder_is_the_users_state_and_no_test_sees_his(state_folder):
  assert default_folder() == state_folder / 'ldm_jax' / 'privacy'
  assert not state_folder.exists()
