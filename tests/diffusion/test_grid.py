"""Laws of the times a run visits."""

import json

import numpy as np
import pytest

from ldm_jax.diffusion import grid


@pytest.mark.parametrize(
  'offset, name',
  [(0, 'DDIMScheduler_50'), (0, 'DDPMScheduler_50'), (1, 'DDIM_50_offset1')],
)
def test_the_linspace_grid_equals_the_reference_grid(golden, offset, name):
  times = json.loads((golden / 'schedulers.json').read_text())[f'timesteps_{name}']
  np.testing.assert_array_equal(grid.time_grid(1000, 50, offset=offset), times)


@pytest.mark.parametrize('spacing', grid.SPACINGS)
@pytest.mark.parametrize('num_timesteps, num_steps', [(150, 150), (1000, 30), (7, 1)])
def test_every_grid_decreases_stays_in_range_and_ends_clean(
  spacing, num_timesteps, num_steps
):
  t, s = grid.time_pairs(num_timesteps, num_steps, spacing)
  assert t.shape == s.shape == (num_steps,)
  assert np.all(np.diff(t) < 0) and np.all(s < t)
  assert t[0] < num_timesteps and t[-1] >= 0 and s[-1] == -1
  if spacing != 'monai':
    np.testing.assert_array_equal(s[:-1], t[1:])


def test_two_calls_a_step_meet_both_its_ends_but_never_the_clean_one():
  t, s = grid.time_pairs(100, 4)
  calls = grid.calls(t, s, twice=True)
  np.testing.assert_array_equal(calls.at, [99, 66, 66, 33, 33, 0, 0])
  np.testing.assert_array_equal(calls.i, [0, 0, 1, 1, 2, 2, 3])
  np.testing.assert_array_equal(calls.arrives, [0, 1, 0, 1, 0, 1, 1])
  once = grid.calls(t, s)
  np.testing.assert_array_equal(once.at, t)
  np.testing.assert_array_equal(once.before[1:], t[:-1])
  np.testing.assert_array_equal(once.before_2[2:], t[:-2])
  assert np.all(once.arrives) and not np.any(once.corrects)


@pytest.mark.parametrize(
  'spacing, offset',
  [('leading', 20), ('trailing', 1), ('linspace', 951), ('monai', -1)],
)
def test_an_offset_that_leaves_the_schedule_is_refused(spacing, offset):
  with pytest.raises(ValueError, match='offset'):
    grid.time_grid(1000, 50, spacing, offset)
