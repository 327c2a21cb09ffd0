"""Laws of the ledger: counts once, never undercounts, refuses what it cannot read."""

import json
import subprocess
import sys

import pytest

from ldm_jax.privacy import accounting, mechanisms
from ldm_jax.privacy.ledger import Ledger, release_id

DELTA = 1e-5


def training(steps=100, sigma=2.0):
  return mechanisms.Poisson(
    num_patients=1000,
    batch_size=100,
    steps=steps,
    clip_norm=1.0,
    noise_multiplier=sigma,
  )


def make_release(run='run-a', **changes):
  release = training(**changes).release('adapt')
  return {**release, 'id': release_id(run, release)}


def test_an_empty_ledger_has_spent_nothing(tmp_path):
  ledger = Ledger(tmp_path / 'private.jsonl')
  assert ledger.releases() == []
  assert ledger.epsilon(DELTA) == {'pld': 0.0, 'rdp': 0.0}
  assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_counts_once_and_a_changed_one_adds_up(tmp_path):
  path = tmp_path / 'beside' / 'private.jsonl'
  assert Ledger(path).record(make_release()) is True
  once = Ledger(path).epsilon(DELTA)['pld']
  content = path.read_bytes()
  assert Ledger(path).record(make_release()) is False
  assert path.read_bytes() == content
  assert [each['id'] for each in Ledger(path).releases()] == [make_release()['id']]
  assert Ledger(path).record(make_release(steps=101)) is True
  assert Ledger(path).record(make_release(run='run-b')) is True
  assert len(Ledger(path).releases()) == 3
  total = Ledger(path).epsilon(DELTA)['pld']
  expected = [accounting.event(make_release(steps=s)) for s in (100, 101, 100)]
  assert total == pytest.approx(accounting.epsilon(expected, DELTA)['pld'])
  assert total > 1.5 * once
  assert path.read_bytes().startswith(content)


def test_the_same_id_with_other_numbers_is_refused(tmp_path):
  ledger = Ledger(tmp_path / 'private.jsonl')
  ledger.record(make_release())
  with pytest.raises(ValueError, match='other numbers'):
    ledger.record({**make_release(), 'steps': 10})
  assert len(ledger.releases()) == 1


def test_a_release_that_cannot_be_accounted_for_is_not_recorded(tmp_path):
  ledger = Ledger(tmp_path / 'private.jsonl')
  for broken in (
    {**make_release(), 'mechanism': 'none'},
    {**make_release(), 'noise_multiplier': float('nan')},
    {**make_release(), 'id': ''},
    {**make_release(), 'name': None},
    {k: v for k, v in make_release().items() if k != 'steps'},
  ):
    with pytest.raises(ValueError):
      ledger.record(broken)
  assert ledger.releases() == []


def damage_number(lines):
  return [lines[0].replace('"steps": 100', '"steps": 1'), *lines[1:]]


@pytest.mark.parametrize(
  ('damage', 'line'),
  [
    (damage_number, 1),
    (lambda lines: [lines[0], lines[1][:40], lines[2]], 2),
    (lambda lines: [lines[0], lines[2]], 2),
    (lambda lines: [lines[1], lines[0], lines[2]], 1),
    (lambda lines: [lines[0], lines[1], lines[2][:-1]], 3),
    (lambda lines: [*lines, '{}\n'], 4),
    (lambda lines: [*lines, '[1, 2]\n'], 4),
    (lambda lines: [*lines, '\n'], 4),
    (lambda lines: ['\0' * 50], 1),
  ],
)
def test_a_damaged_line_stops_everything_and_is_named(tmp_path, damage, line):
  path = tmp_path / 'private.jsonl'
  ledger = Ledger(path)
  for run in 'abc':
    ledger.record(make_release(run))
  lines = path.read_text().splitlines(keepends=True)
  path.write_text(''.join(damage(lines)))
  before = path.read_bytes()
  for use in (ledger.releases, lambda: ledger.record(make_release('d'))):
    with pytest.raises(ValueError, match=f'line {line} of the privacy ledger'):
      use()
  assert path.read_bytes() == before


def test_a_total_budget_refuses_what_would_exceed_it(tmp_path):
  ledger = Ledger(tmp_path / 'private.jsonl')
  for run in ('first', 'second'):
    target = 1.0 if run == 'first' else 2.0
    scheme = training(steps=50).calibrated(target, DELTA, ledger.events())
    release = scheme.release(run)
    release['id'] = release_id(run, release)
    assert ledger.record(release, budget=(target, DELTA))
  assert 1.99 < ledger.epsilon(DELTA)['pld'] <= 2.0
  with pytest.raises(ValueError, match=r'total allowed is 2'):
    ledger.record(make_release('third'), budget=(2.0, DELTA))
  assert len(ledger.releases()) == 2


def test_releases_that_belong_together_are_recorded_all_or_none(tmp_path):
  ledger = Ledger(tmp_path / 'private.jsonl')
  pair = [make_release('beside', steps=10), make_release('training')]
  alone = accounting.epsilon([accounting.event(pair[0])], DELTA)['pld']
  both = accounting.epsilon([accounting.event(each) for each in pair], DELTA)['pld']
  with pytest.raises(ValueError, match=r'adapt with adapt.*total allowed'):
    ledger.record_all(pair, budget=((alone + both) / 2, DELTA))
  with pytest.raises(ValueError, match='unknown'):
    ledger.record_all([pair[0], {**pair[1], 'mechanism': 'none'}])
  assert ledger.releases() == []
  assert ledger.record_all(pair, budget=(both * 1.01, DELTA)) == 2
  assert ledger.record_all(pair, budget=(both * 1.01, DELTA)) == 0
  assert len(ledger.releases()) == 2


WRITER = """
import sys
from ldm_jax.privacy.ledger import Ledger
for index in range(8):
  Ledger(sys.argv[1]).record({
    'id': f'{sys.argv[2]}-{index}', 'name': 'adapt', 'mechanism': 'gaussian',
    'noise_multiplier': 2.0, 'sampling_probability': 0.1, 'steps': 100,
  })
"""


def test_two_processes_lose_no_release(tmp_path):
  path = tmp_path / 'private.jsonl'
  writers = [
    subprocess.Popen([sys.executable, '-c', WRITER, str(path), name]) for name in 'ab'
  ]
  assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
  assert len(Ledger(path).releases()) == 16


SPENDER = """
import pathlib, sys, time
from ldm_jax.privacy import accounting
from ldm_jax.privacy.ledger import Ledger
true_epsilon = accounting.epsilon
def slow_epsilon(*args):
  found = true_epsilon(*args)
  time.sleep(1)  # without a lock, the other process has the same answer by now
  return found
release = {
  'id': sys.argv[2], 'name': 'adapt', 'mechanism': 'gaussian',
  'noise_multiplier': 5.0, 'sampling_probability': 1.0, 'steps': 1,
}
event = accounting.event(release)
one, two = (true_epsilon([event] * n, 1e-5)['pld'] for n in (1, 2))
accounting.epsilon = slow_epsilon
folder = pathlib.Path(sys.argv[1]).absolute().parent
(folder / f'ready-{sys.argv[2]}').touch()
while len(list(folder.glob('ready-*'))) < 2:
  time.sleep(0.01)
try:
  Ledger(sys.argv[1]).record(release, budget=((one + two) / 2, 1e-5))
except ValueError as error:
  sys.exit(3 if 'total allowed' in str(error) else 1)
"""


def test_two_processes_cannot_both_spend_the_same_remainder(tmp_path):
  """Also where one of them reaches the ledger by a link."""
  path, link = tmp_path / 'private.jsonl', tmp_path / 'link.jsonl'
  link.symlink_to(path)
  spenders = [
    subprocess.Popen([sys.executable, '-c', SPENDER, str(place), name])
    for place, name in ((path, 'a'), (link, 'b'))
  ]
  assert sorted(spender.wait(timeout=120) for spender in spenders) == [0, 3]
  assert link.is_symlink()
  assert len(Ledger(path).releases()) == len(Ledger(link).releases()) == 1


def test_every_line_is_plain_json_with_the_release_in_words(tmp_path):
  path = tmp_path / 'private.jsonl'
  Ledger(path).record(make_release())
  line = json.loads(path.read_text())
  assert line['mechanism'] == 'gaussian'
  assert line['noise_multiplier'] == 2.0
  assert line['steps'] == 100


# One ledger, several work folders


def test_a_ledger_belongs_to_its_patients_and_names_none_of_them(tmp_path):
  path, patients = tmp_path / 'private.jsonl', ['anna-1', 'berta-2', 'carla-3']
  Ledger(path, patients).record(make_release('a'))
  Ledger(path, reversed(patients)).record(make_release('b'))
  assert len(Ledger(path, patients).releases()) == 2
  for others in (patients[:2], [*patients, 'dora-4'], ['x']):
    for use in (
      Ledger(path, others).releases,
      lambda others=others: Ledger(path, others).record(make_release('c')),
    ):
      with pytest.raises(ValueError, match=r'other patients.*ledger\.path'):
        use()
  assert len(Ledger(path).releases()) == 2
  text = path.read_text()
  assert not any(
    word in text for patient in patients for word in patient.split('-')[:1]
  )
  again = tmp_path / 'again.jsonl'
  Ledger(again, patients).record(make_release('a'))
  first, second = (json.loads(p.read_text().splitlines()[0]) for p in (path, again))
  assert set(first) == {'cohort', 'salt', 'chain'}
  assert first['cohort'] != second['cohort'], 'without a salt, ledgers can be matched'


def test_a_ledger_from_before_cohorts_is_read_and_bound_by_the_next_release(tmp_path):
  path = tmp_path / 'private.jsonl'
  Ledger(path).record(make_release('old'))
  before = path.read_text()
  assert 'cohort' not in before
  book = Ledger(path, ['a', 'b'])
  assert len(book.releases()) == 1
  book.record(make_release('new'))
  assert path.read_text().startswith(before)
  assert [release['id'] for release in book.releases()] == [
    make_release('old')['id'],
    make_release('new')['id'],
  ]
  with pytest.raises(ValueError, match='other patients'):
    Ledger(path, ['a']).releases()


@pytest.mark.parametrize('damage', ['salt', 'twice', 'gone'])
def test_a_changed_line_of_the_cohort_stops_everything(tmp_path, damage):
  path = tmp_path / 'private.jsonl'
  Ledger(path, ['a', 'b']).record(make_release())
  first, second = path.read_text().splitlines(keepends=True)
  content = json.loads(first)
  changed = {
    'salt': first.replace(content['salt'], '0' * 32) + second,
    'twice': first + first + second,
    'gone': second,
  }[damage]
  path.write_text(changed)
  with pytest.raises(ValueError, match='damaged'):
    Ledger(path, ['a', 'b']).releases()


def test_a_release_cannot_pass_for_the_line_of_the_cohort(tmp_path):
  with pytest.raises(ValueError, match='cohort'):
    Ledger(tmp_path / 'private.jsonl').record({**make_release(), 'cohort': 'x'})
