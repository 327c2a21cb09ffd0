"""Laws of the ledger of the private cohort: one file, of these patients, complete."""

import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.pipeline import private_ledger
from ldm_jax.workfolder import WorkFolder

PATIENTS = ['a', 'b', 'c']
NUMBERS = {
  'name': 'adapt: full fine-tuning',
  'mechanism': 'gaussian',
  'noise_multiplier': 1.0,
  'sampling_probability': 1.0,
  'steps': 1,
  'clip_norm': 1.0,
}


def opened(root, patients=PATIENTS, **section):
  flags = {f'ledger.{key}': value for key, value in section.items()}
  config, work = override(defaults(), flags), WorkFolder(root)
  return private_ledger.open_ledger(config, work, patients), config, work


def test_what_one_object_records_another_has_read_at_its_next_question(tmp_path):
  (one, *_), (other, *_) = opened(tmp_path), opened(tmp_path)
  assert other.releases() == []
  release = private_ledger.named('run', NUMBERS)
  one.record(release)
  assert private_ledger.ids(other) == {release['id']}
  assert private_ledger.release_of(other, 'run') == release
  assert private_ledger.release_of(other, 'another') is None


def test_an_id_follows_from_the_run_the_part_and_every_number():
  ids = [
    private_ledger.named(run, {**NUMBERS, 'steps': steps}, part)['id']
    for run in ('x', 'y')
    for steps in (1, 2)
    for part in ('', 'drift')
  ]
  assert len(set(ids)) == len(ids)
  assert private_ledger.named('x', NUMBERS, 'drift')['run'] == 'x/drift'


def test_a_ledger_that_shrinks_during_a_stage_is_found_before_the_statement(tmp_path):
  book, config, work = opened(tmp_path)
  book.record(private_ledger.named('run', NUMBERS))
  work.write_json({'releases': book.releases()}, 'privacy.json')
  private_ledger.check_complete(book, config, work)
  book.path.unlink()
  with pytest.raises(ValueError, match=r'lists 1 releases.*only 0'):
    private_ledger.check_complete(book, config, work)


def test_a_shared_ledger_must_know_what_the_store_s_own_knows(tmp_path):
  book, *_ = opened(tmp_path)
  book.record(private_ledger.named('run', NUMBERS))
  shared = tmp_path / 'shared.jsonl'
  with pytest.raises(ValueError, match=r'1 releases.*would be forgotten'):
    opened(tmp_path, path=str(shared))
  shared.write_bytes(book.path.read_bytes())
  assert opened(tmp_path, path=str(shared))[0].releases() == book.releases()


def test_work_folders_on_the_same_patients_share_a_budget_and_phantoms_do_not(tmp_path):
  for layout, counted in (('folder', 1), ('phantom_cardiac', 0)):
    books = []
    for name in ('one', 'two'):
      flags = {'data.private.layout': layout}
      config, work = override(defaults(), flags), WorkFolder(tmp_path / layout / name)
      books.append(private_ledger.open_ledger(config, work, PATIENTS))
      assert private_ledger.counts_all(config)
    books[0].record(private_ledger.named(layout, NUMBERS))
    assert len(books[1].releases()) == counted
    assert private_ledger.ids(books[1]) == set()


def test_a_ledger_that_stands_alone_is_no_private_one(tmp_path):
  book, config, _ = opened(tmp_path, registry='none')
  assert book.registry is None and not private_ledger.counts_all(config)
  book.record(private_ledger.named('run', NUMBERS))
  details = {'delta': 1e-5, 'num_patients': 9, 'randomness': '', 'config_sha256': ''}
  made = book.statement(**details, counts_all=False)
  assert made['private'] is False and made['counts_all_releases'] is False
  assert made['not_covered'][0].startswith('OTHER RELEASES ON THE SAME PATIENTS')
