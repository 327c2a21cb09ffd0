"""The times that a sampling run visits, and the denoiser calls made there.

[Lin24] arXiv 2305.08891 (spacings), [Karras22] arXiv 2206.00364 (Heun's calls).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SPACINGS = ('linspace', 'leading', 'trailing', 'monai')
# The message of inversions for this spacing.
NO_INVERSE = (
  "The spacing 'monai' skips times between two steps, so it has no inverse; use "
  f'one of {list(SPACINGS[:3])}.'
)
TimePairs = tuple[np.ndarray, ...]


class Calls(NamedTuple):
  """The denoiser calls of a run, arrays (n,) with one entry per call, for `lax.scan`.

  Step i goes from time t to s < t (-1 is clean); the two steps before it began at
  `before` and `before_2`. The call is made at time `at`: t, or s if it `corrects`
  the step. `arrives` is False if one more call will correct the step, else True.
  """

  i: jax.Array
  t: jax.Array
  s: jax.Array
  before: jax.Array
  before_2: jax.Array
  at: jax.Array
  corrects: jax.Array
  arrives: jax.Array


def time_grid(
  num_timesteps: int, num_steps: int, spacing: str = 'linspace', offset: int = 0
) -> np.ndarray:
  """Returns the num_steps decreasing integer times a run visits, int32 (num_steps,).

  `linspace` runs from T-1 to `offset`, `leading` in strides of T // num_steps down to
  `offset`, `trailing` from T-1 in strides of T / num_steps ([Lin24] Table 2); `monai`
  is `linspace`. Stable Diffusion was sampled with an offset of 1.

  Raises:
    ValueError: fewer than 1 or more than num_timesteps steps, an unknown spacing, or
      an offset that leaves the schedule.
  """
  if not 1 <= num_steps <= num_timesteps:
    raise ValueError(
      f'The number of sampling steps is {num_steps}, but the schedule has '
      f'{num_timesteps} times; set num_steps between 1 and {num_timesteps}.'
    )
  if spacing not in SPACINGS:
    raise ValueError(f'The spacing is {spacing!r}, expected one of {list(SPACINGS)}.')
  times: np.ndarray
  stride = num_timesteps // num_steps
  largest = stride - 1 if spacing == 'leading' else num_timesteps - num_steps
  if not 0 <= offset <= largest or (offset and spacing == 'trailing'):
    raise ValueError(
      f'An offset of {offset} does not fit {num_steps} steps of {num_timesteps} times '
      f'with the spacing {spacing!r}; set the offset to 0.'
    )
  if spacing == 'leading':
    times = np.arange(num_steps) * stride + offset
  elif spacing == 'trailing':
    ends = np.arange(1, num_steps + 1) * num_timesteps / num_steps
    times = np.round(ends) - 1
  elif num_steps == 1:
    times = np.array([num_timesteps - 1])
  else:
    times = np.round(np.linspace(offset, num_timesteps - 1, num_steps))
  return times[::-1].astype(np.int32)


def time_pairs(
  num_timesteps: int, num_steps: int, spacing: str = 'linspace', offset: int = 0
) -> TimePairs:
  """Returns (t, s), each int32 (num_steps,): step i goes from t[i] to s[i] < t[i].

  s is the next time of the grid and -1 (clean) at the end. `monai` reproduces
  MONAI 1.6: its grid is `linspace`, yet its step subtracts T // num_steps.
  """
  t = time_grid(num_timesteps, num_steps, spacing, offset)
  if spacing == 'monai':
    return t, np.maximum(t - num_timesteps // num_steps, -1).astype(np.int32)
  return t, np.append(t[1:], -1).astype(np.int32)


def leave_out(pairs: TimePairs, first_step: int) -> TimePairs:
  """(t, s) without the first, noisiest steps: for a run from partly noised data.

  Raises:
    ValueError: if no step would be left.
  """
  if not 0 <= first_step < len(pairs[0]):
    raise ValueError(
      f'{first_step} of {len(pairs[0])} steps would be skipped, but at least one must '
      'remain. Change counterfactual.ddpm.skip or counterfactual.sdedit.strength.'
    )
  return tuple(times[first_step:] for times in pairs)


def calls(t: np.ndarray, s: np.ndarray, twice: bool = False) -> Calls:
  """The `Calls` of a run over steps from t (n,) to s (n,): one per step, or two.

  With `twice` the denoiser is called at both ends of every step but the last
  (2 num_steps - 1 calls): the last step ends at the clean time, for which no network is
  trained.
  """
  steps = np.arange(len(t))
  number = np.repeat(steps, 2)[:-1] if twice else steps
  corrects = np.arange(len(number)) % 2 == 1 if twice else np.zeros(len(t), bool)
  arrives = corrects | (number == steps[-1]) | (not twice)
  before, before_2 = (t[np.maximum(number - back, 0)] for back in (1, 2))
  at = np.where(corrects, s[number], t[number])
  fields = (number, t[number], s[number], before, before_2, at, corrects, arrives)
  return Calls(*map(jnp.asarray, fields))
