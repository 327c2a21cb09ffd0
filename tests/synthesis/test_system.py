"""Laws of a fitted system: which network it is, and where text goes."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.synthesis import system
from ldm_jax.training import checkpoint
from ldm_jax.workfolder import WorkFolder


@pytest.mark.parametrize(
  'model, adapted, expected',
  [
    ('adapt', True, 'adapt'),
    ('adapt', False, 'diffusion'),
    ('diffusion', True, 'diffusion'),
  ],
)
def test_the_sampled_stage_follows_from_what_adapt_left(
  model, adapted, expected, tmp_path
):
  config, work = defaults(), WorkFolder(tmp_path)
  config.sample.model = model
  done = {'fingerprint': 'f', 'adapted': adapted}
  work.write_json(done, 'checkpoints', 'adapt', 'done.json')
  assert system.sampled_stage(config, work) == expected


def test_a_network_adapted_from_another_pre_trained_one_is_refused(tmp_path):
  config, work = defaults(), WorkFolder(tmp_path)
  checkpoint.save_params(work.checkpoints('diffusion'), {'w': np.zeros(2, np.float32)})
  work.write_json({'fingerprint': 'new'}, 'checkpoints', 'diffusion', 'done.json')
  done = {'fingerprint': 'f', 'base': 'old'}
  work.write_json(done, 'checkpoints', 'adapt', 'done.json')
  np.testing.assert_array_equal(system.denoiser_params(config, work, False)['w'], 0)
  with pytest.raises(ValueError, match='diffusion was run again after adapt'):
    system.denoiser_params(config, work, True)


def test_text_stands_between_the_attributes_and_the_pair():
  seen = []
  denoiser = types.SimpleNamespace(
    num_categories=(0, 2),
    num_conditions=5,
    apply=lambda variables, z_t, t, conditions, drop, mutable: seen.append(conditions),
  )
  own, pair = jnp.array([[0.5, 1.0]]), jnp.array([[7.0, 8.0]])
  text = np.array([1.0, 2.0, 3.0], np.float32)
  cases = (
    (own, text, [0.5, 1, 1, 2, 3]),
    (jnp.concatenate([own, pair], 1), text, [0.5, 1, 1, 2, 3, 7, 8]),
    (jnp.concatenate([own, pair], 1), None, [0.5, 1, *[np.nan] * 3, 7, 8]),
    (own, None, [0.5, 1]),
  )
  for attributes, embedded, expected in cases:
    system.with_text(denoiser, embedded)({}, None, None, attributes, None)
    np.testing.assert_array_equal(seen[-1], [expected])
