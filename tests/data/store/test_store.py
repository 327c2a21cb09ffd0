"""Laws of the store: resumable, atomic, one bad file does not stop it."""

import errno
import json
import multiprocessing
import os
import pathlib
import signal
import time

import numpy as np
import pytest

from ldm_jax import atomic
from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.readers import volume
from ldm_jax.data.store import store

SPEC = Spec((6, 6, 6))


def test_an_interrupted_prepare_continues(tmp_path, make_cohort, monkeypatch):
  cohort, made = make_cohort(), []

  def interrupt(done, _):
    if done == 2:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    store.prepare(tmp_path / 's', cohort, SPEC, progress=interrupt, workers=1)
  kept = set(os.listdir(tmp_path / 's' / 'volumes'))
  assert len(kept) >= 2 and not (tmp_path / 's' / 'public.json').exists()
  original = preprocess.apply

  def count(*args):
    made.append(1)
    return original(*args)

  monkeypatch.setattr(preprocess, 'apply', count)
  store.prepare(tmp_path / 's', cohort, SPEC)
  assert len(made) == 6 - len(kept)
  made.clear()
  store.prepare(tmp_path / 's', cohort, SPEC)
  assert not made


def test_a_damaged_entry_is_made_again(tmp_path, make_cohort):
  cohort = make_cohort()
  store.prepare(tmp_path / 's', cohort, SPEC)
  entry = sorted((tmp_path / 's' / 'volumes').iterdir())[0]
  whole = entry.read_bytes()
  entry.write_bytes(whole[:100])
  with pytest.raises(ValueError, match='Delete it'):
    store.open_split(tmp_path / 's', 'public').volumes(np.arange(6))
  store.prepare(tmp_path / 's', cohort, SPEC)
  assert entry.read_bytes() == whole


def damage(record):
  path = pathlib.Path(record.source.image)
  path.write_bytes(path.read_bytes()[:200])


def test_one_bad_file_in_many_is_listed_and_passed_over(tmp_path, make_cohort):
  cohort = make_cohort(num=10)
  damage(cohort.records[3])
  index = store.prepare(tmp_path / 's', cohort, SPEC, max_bad_fraction=0.05)
  (problem,) = index['problems']
  assert problem['id'] == '1_ES' and problem['path'] == cohort.records[3].source.image
  split = store.open_split(tmp_path / 's', 'public')
  assert len(split) == 19 and split.num_patients == 10
  assert split.problems == [problem]


def test_too_many_bad_files_are_an_error_that_lists_five(tmp_path, make_cohort):
  cohort = make_cohort(num=4)
  for record in cohort.records[:7]:
    damage(record)
  with pytest.raises(ValueError, match='7 of the 8') as error:
    store.prepare(tmp_path / 's', cohort, SPEC, max_bad_fraction=0.1)
  message = str(error.value)
  assert (
    message.count('.nii.gz cannot be read') + message.count('truncated') == 5
    and 'and 2 more' in message
  )
  assert 'data.max_bad_fraction' in message
  assert len(os.listdir(tmp_path / 's' / 'volumes')) == 1


def test_a_cohort_of_only_bad_files_is_an_error_at_any_threshold(tmp_path, make_cohort):
  cohort = make_cohort(num=1)
  for record in cohort.records:
    damage(record)
  with pytest.raises(ValueError, match='2 of the 2'):
    store.prepare(tmp_path / 's', cohort, SPEC, max_bad_fraction=1.0)


def test_an_empty_cohort_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='no scans'):
    store.prepare(tmp_path / 's', Cohort('public', Schema(), ()), SPEC)


def test_a_full_disk_leaves_no_half_file_and_is_no_bad_scan(
  tmp_path, make_cohort, monkeypatch
):
  cohort, real_fsync, calls = make_cohort(), os.fsync, []

  def full_after_two(handle):
    calls.append(1)
    if len(calls) > 2:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real_fsync(handle)

  monkeypatch.setattr(os, 'fsync', full_after_two)
  with pytest.raises(OSError, match='No space left') as error:
    store.prepare(tmp_path / 's', cohort, SPEC, max_bad_fraction=1.0, workers=1)
  assert error.value.errno == errno.ENOSPC
  names = os.listdir(tmp_path / 's' / 'volumes')
  assert len(names) == 2 and all(name.endswith('.safetensors') for name in names)
  monkeypatch.setattr(os, 'fsync', real_fsync)
  store.prepare(tmp_path / 's', cohort, SPEC)
  assert len(store.open_split(tmp_path / 's', 'public')) == 6


def test_leftovers_of_killed_processes_are_removed(tmp_path, make_cohort):
  folder = tmp_path / 's' / 'volumes'
  folder.mkdir(parents=True)
  for name, age in (('old', 7200), ('new', 0)):
    path = folder / f'{atomic.TEMPORARY_PREFIX}{name}'
    path.write_bytes(b'x')
    os.utime(path, (path.stat().st_mtime - age,) * 2)
  store.prepare(tmp_path / 's', make_cohort(), SPEC)
  left = [p.name for p in folder.iterdir() if p.name.startswith('.')]
  assert left == [f'{atomic.TEMPORARY_PREFIX}new']


def test_two_processes_may_prepare_at_once(tmp_path, make_cohort):
  cohort = make_cohort(num=6)
  context = multiprocessing.get_context('spawn')
  workers = [
    context.Process(target=store.prepare, args=(tmp_path / 's', cohort, SPEC))
    for _ in range(2)
  ]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join()
  assert [worker.exitcode for worker in workers] == [0, 0]
  split = store.open_split(tmp_path / 's', 'public')
  assert split.volumes(np.arange(12)).shape == (12, 6, 6, 6, 1)


def test_the_index_is_strict_json_and_warns_of_values_out_of_range(
  tmp_path, make_cohort
):
  cohort = make_cohort(num=12)
  store.prepare(tmp_path / 's', cohort, SPEC)
  text = (tmp_path / 's' / 'public.json').read_text()
  assert 'NaN' not in text
  assert [w[:5] for w in json.loads(text)['warnings']] == ['11_ED', '11_ES']


def test_the_same_file_under_two_ids_is_told(tmp_path, make_cohort):
  cohort = make_cohort(num=2)
  copy = Record('copy', 'new', cohort.records[0].source, {})
  repeated = Cohort('public', Schema(), (*cohort.records, copy))
  index = store.prepare(tmp_path / 's', repeated, SPEC)
  assert index['warnings'] == ['copy: the same file as 0_ED']
  store.prepare(tmp_path / 's', Cohort('private', Schema(), (copy,)), SPEC)
  splits = {n: store.open_split(tmp_path / 's', n) for n in ('public', 'private')}
  with pytest.raises(ValueError, match='same file') as raised:
    store.check_distinct(splits)
  assert 'copy' not in str(raised.value)
  (told,) = raised.value.details['private']
  assert told.startswith("The scan 'copy' of 'private' is the same file as")


def prepare_slowly(folder, cohort):
  original = preprocess.apply

  def slow(*args):
    time.sleep(0.05)
    return original(*args)

  preprocess.apply = slow
  store.prepare(folder, cohort, SPEC, workers=2)


def test_a_killed_prepare_leaves_whole_entries_and_the_next_one_makes_the_rest(
  tmp_path, make_cohort, monkeypatch
):
  cohort, volumes = make_cohort(num=10), tmp_path / 's' / 'volumes'
  context = multiprocessing.get_context('spawn')
  worker = context.Process(target=prepare_slowly, args=(tmp_path / 's', cohort))
  worker.start()
  deadline = time.monotonic() + 60
  while len(list(volumes.glob('*.safetensors'))) < 4 and time.monotonic() < deadline:
    time.sleep(0.005)
  os.kill(worker.pid, signal.SIGKILL)
  worker.join()
  kept = {path: path.read_bytes() for path in volumes.glob('*.safetensors')}
  assert worker.exitcode == -signal.SIGKILL and 4 <= len(kept) < 20
  made, original = [], preprocess.apply
  monkeypatch.setattr(preprocess, 'apply', lambda *a: made.append(1) or original(*a))
  store.prepare(tmp_path / 's', cohort, SPEC)
  assert len(made) == 20 - len(kept)
  assert all(path.read_bytes() == content for path, content in kept.items())
  assert len(store.open_split(tmp_path / 's', 'public')) == 20


def test_a_changed_spec_never_reads_a_stale_entry(tmp_path, make_cohort):
  cohort, other = make_cohort(), Spec((6, 6, 6), percentiles=(5, 80))
  store.prepare(tmp_path / 's', cohort, SPEC)
  first = store.open_split(tmp_path / 's', 'public', spec=SPEC).volumes(np.arange(6))
  with pytest.raises(ValueError, match='percentiles differ'):
    store.open_split(tmp_path / 's', 'public', spec=other)
  store.prepare(tmp_path / 's', cohort, other)
  second = store.open_split(tmp_path / 's', 'public', spec=other)
  truth = preprocess.apply(other, *cohort.records[0].source.read()).array
  assert np.array_equal(second.volumes([0])[0, ..., 0], truth)
  assert not np.array_equal(second.volumes(np.arange(6)), first)


def test_the_index_says_how_many_scans_jump_from_slice_to_slice(tmp_path):
  class Source:
    def __init__(self, factors):
      self.factors = np.asarray(factors, np.float32)

    def read(self):
      array = np.random.default_rng(0).uniform(50, 60, (6, 32, 32)).astype(np.float32)
      array[:, :8] = 0
      return volume.Volume(array * self.factors[:, None, None], np.eye(4)), None

    def fingerprint(self):
      return str(self.factors)

  records = [
    Record(str(n), str(n), Source(factors))
    for n, factors in enumerate(([1] * 6, [1, 1, 1.5, 1, 1, 1]))
  ]
  spec = Spec((6, 32, 32))
  index = store.prepare(tmp_path, Cohort('public', Schema(), tuple(records)), spec)
  assert index['slices']['scans_with_jumps'] == 1
  assert index['slices']['largest'] == pytest.approx(1.5, rel=0.02)
  (words,) = store.slices_in_words(index)
  assert '1 of 2 scans' in words and 'harmonise_slices=True' in words
  store.prepare(tmp_path, Cohort('public', Schema(), tuple(records[:1])), spec)
  assert not store.slices_in_words({**index, 'slices': store._slices([])})


def test_an_unprepared_cohort_is_an_error_that_names_the_stage(tmp_path, make_cohort):
  with pytest.raises(ValueError, match='prepare'):
    store.open_split(tmp_path, 'public')
  store.prepare(tmp_path, make_cohort(), SPEC)
  with pytest.raises(ValueError, match='prepared with the attributes'):
    store.open_split(tmp_path, 'public', Schema())


def test_files_that_rest_are_not_hashed_again_and_changed_ones_are(
  tmp_path, make_cohort, monkeypatch
):
  cohort, hashed = make_cohort(), []
  original = FileSource.fingerprint
  monkeypatch.setattr(
    FileSource, 'fingerprint', lambda self: hashed.append(self) or original(self)
  )
  for record in cohort.records:
    for file in record.source.files:
      os.utime(file, (time.time() - 60,) * 2)
  first = store.prepare(tmp_path / 's', cohort, SPEC)
  assert len(hashed) == 6
  assert store.prepare(tmp_path / 's', cohort, SPEC) == first and len(hashed) == 6
  changed = pathlib.Path(cohort.records[2].source.image)
  changed.write_bytes(pathlib.Path(cohort.records[4].source.image).read_bytes())
  second = store.prepare(tmp_path / 's', cohort, SPEC)
  assert hashed[6:] == [cohort.records[2].source]
  assert second['entries'][2]['key'] != first['entries'][2]['key']
  # Just written, so it may change again within the clock's resolution: not trusted.
  store.prepare(tmp_path / 's', cohort, SPEC)
  assert hashed[7:] == [cohort.records[2].source]
