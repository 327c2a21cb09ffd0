"""What one process tells the others, and whose files reach the disk."""

import threading

import pytest

from ldm_jax import atomic, interruption, processes


class Shared:
  """A `processes.Store` of threads that stand for processes."""

  def __init__(self):
    self._texts, self._changed = {}, threading.Condition()

  def put(self, name, text):
    with self._changed:
      assert name not in self._texts
      self._texts[name] = text
      self._changed.notify_all()

  def take(self, name):
    with self._changed:
      assert self._changed.wait_for(lambda: name in self._texts, timeout=20)
      return self._texts[name]


class PerThread(threading.local):
  """Stands for the module's variable, which is one of each process."""

  group = None


@pytest.fixture
def several(monkeypatch):
  """run(function, count) -> results, or errors, of as many processes."""
  own = PerThread()

  class Group:
    def __getattr__(self, name):
      return getattr(own.group, name)

    def __setattr__(self, name, value):
      setattr(own.group, name, value)

  monkeypatch.setattr(processes, '_group', Group())
  make = processes._Group

  def run(function, count=3):
    store, found = Shared(), [None] * count

    def work(number):
      own.group = make(number, count, store)
      try:
        found[number] = function()
      except BaseException as error:
        found[number] = error

    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join(30)
    return found

  return run


def test_one_process_does_everything_by_itself():
  assert processes.count() == processes.total() == 1 and processes.is_first()
  assert processes.first(lambda: 3) == 3 and processes.agreed('a') == 'a'
  assert processes.gathered(5) == [5] and processes.share('abc') == list('abc')
  assert processes.has(7) and processes.writes()


def test_all_hear_what_the_first_has_found(several):
  calls = []

  def work():
    number = processes.number()
    found = processes.first(lambda: calls.append(number) or {'found': number})
    return found, processes.agreed(number), processes.gathered(number)

  assert several(work) == [({'found': 0}, 0, [0, 1, 2])] * 3
  assert calls == [0]


def test_the_first_works_alone_within_first(several):
  def work():
    return processes.first(lambda: [processes.count(), processes.total()])

  assert several(work) == [[1, 3]] * 3


def test_the_shares_of_all_processes_are_the_whole_list_each_item_once(several):
  def work():
    own = processes.share(range(10))
    assert own == [item for item in range(10) if processes.has(item)]
    return own

  assert sorted(item for own in several(work, 4) for item in own) == list(range(10))


@pytest.mark.parametrize(
  ('error', 'status'), [(ValueError('bad key'), 2), (OSError('disk full'), 1)]
)
def test_an_error_of_the_first_ends_the_others_with_its_words_and_status(
  several, error, status
):
  def fail():
    raise error

  first, *others = several(lambda: processes.first(fail))
  assert first is error and processes.status_of(first) == status
  for other in others:
    assert isinstance(other, processes.ToldError) and other.status == status
    assert str(other) == str(error)


def test_a_signal_to_the_first_interrupts_all(several):
  def stop():
    raise interruption.Interrupted(15)

  found = several(lambda: processes.first(stop))
  assert [type(error) for error in found] == [interruption.Interrupted] * 3
  assert {processes.status_of(error) for error in found} == {143}


def test_only_the_first_process_writes_unless_all_have_files_of_their_own(
  several, tmp_path
):
  def work():
    name = f'{processes.number()}.txt'
    atomic.write_text(tmp_path / 'shared' / name, 'x')
    with processes.all_writing():
      atomic.write_text(tmp_path / 'own' / name, 'x')
    atomic.write_text(tmp_path / 'after' / name, 'x')
    return True

  assert several(work) == [True] * 3
  names = lambda folder: sorted(path.name for path in (tmp_path / folder).iterdir())
  assert names('shared') == names('after') == ['0.txt']
  assert names('own') == ['0.txt', '1.txt', '2.txt']


def test_a_secret_is_destroyed_by_the_first_process_alone(several, tmp_path):
  path = tmp_path / 'key'
  path.write_text('secret')

  def work():
    if processes.number() == 1:
      atomic.destroy(path)
    return path.exists()

  assert several(work, 2)[1]
