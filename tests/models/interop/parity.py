"""Two networks with one set of weights: torch's, channels first, and ours."""

import numpy as np

from ldm_jax.models import convert

# Options of a small DiffusionModelUNet of MONAI.
UNET = {
  'spatial_dims': 3,
  'in_channels': 2,
  'out_channels': 2,
  'channels': (4, 8),
  'attention_levels': (False, True),
  'num_res_blocks': 1,
  'num_head_channels': 4,
  'norm_num_groups': 4,
}


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
