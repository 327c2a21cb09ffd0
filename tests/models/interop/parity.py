"""Two networks with one set of weights: torch's, channels first, and ours."""

import numpy as np

from ldm_jax.models import convert


def imported(reference, tensors):
  """Our parameters; checks that the way back gives every tensor bit for bit."""
  params = convert.to_ours(reference, tensors)
  back = convert.to_theirs(reference, params)
  assert set(back) == set(tensors)
  for name, value in tensors.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)
  return params


def inputs(*shape):
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def first(x):
  return np.moveaxis(np.asarray(x), -1, 1)


def last(x):
  return np.moveaxis(x, 1, -1)


def close(ours, theirs):
  theirs = theirs.detach().numpy()
  assert np.abs(first(ours) - theirs).max() <= 1e-4 * np.abs(theirs).max()
