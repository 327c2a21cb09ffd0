"""Laws of the memory of correlated noise: kept for one step, else computed again."""

from ldm_jax.privacy import replay as replays
from ldm_jax.privacy import secret_key

KEY = secret_key.new_noise_key(0)


def test_what_was_lost_is_computed_again_from_the_first_step():
  """Memory counts steps here: what `again` is asked for is what it adds."""
  calls = []

  def again(memory, step):
    calls.append(step)
    return (*memory, step)

  replay, start = replays.Replay(), lambda: ()
  assert replay.before(3, KEY, start, again) == (0, 1, 2)
  replay.keep(4, KEY, (0, 1, 2, 3))
  calls.clear()
  assert replay.before(4, KEY, start, again) == (0, 1, 2, 3) and not calls
  assert replay.before(2, KEY, start, again) == (0, 1)  # it was handed out
  replay.keep(4, KEY, (0, 1, 2, 3))
  assert replay.before(6, KEY, start, again) == tuple(range(6))
  replay.keep(6, KEY, tuple(range(6)))
  assert replay.before(2, KEY, start, again) == (0, 1)
  replay.keep(2, KEY, (0, 1))
  calls.clear()
  replay.before(2, secret_key.new_noise_key(1), start, again)
  assert calls == [0, 1], "another key's memory was used"
  assert 'secret' in repr(replay)
