"""Laws of the loss of label channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.training import autoencoder_loss, label_loss

KEYS = jax.random.split(jax.random.key(0), 400)
TRUTH = jax.nn.one_hot(np.arange(48).reshape(2, 2, 3, 4) % 3, 3)


def test_the_right_labels_cost_nothing_and_wrong_ones_more_the_surer_they_are():
  weights = np.ones(3)
  right = label_loss.losses(50 * TRUTH, TRUTH, weights)
  np.testing.assert_allclose(right, 0, atol=1e-3)
  wrong = jnp.roll(TRUTH, 1, -1)
  costs = [label_loss.losses(s * wrong, TRUTH, weights) for s in (0.0, 1.0, 5.0)]
  assert (costs[0] < costs[1]).all() and (costs[1] < costs[2]).all()
  # Of equal logits: log 3, and of the overlap, 2 (n/3) / (n + n) with n a third.
  dice = 1 - (2 * (8 / 3) + 1) / (8 + 8 + 1)
  np.testing.assert_allclose(costs[0], np.log(3) + dice, rtol=1e-5)


def test_weights_favour_rare_classes_and_leave_the_mean_over_voxels_at_one():
  shares = np.array([0.9, 0.09, 0.01, 0.0])
  weights = label_loss.class_weights(shares)
  assert (np.diff(weights) > 0).all() and np.isfinite(weights).all()
  np.testing.assert_allclose((weights * shares).sum(), 1)
  np.testing.assert_allclose(weights[2] / weights[1], 3, rtol=1e-6)


def test_hidden_labels_are_zero_in_the_share_that_was_asked_for_and_scans_stay():
  x = jnp.ones((400, 2, 2, 2, 3))
  hidden = label_loss.hide(x, KEYS, 2, 0.25)
  assert (hidden[..., 0] == 1).all()
  seen = np.asarray(hidden[..., 1:].mean((1, 2, 3, 4)))
  assert set(seen) == {0.0, 1.0} and abs(seen.mean() - 0.75) < 0.07
  assert np.array_equal(label_loss.hide(x, KEYS, 2, 0.0), x)


class Echo:
  """Decodes to its labels' logits, whatever the latent."""

  num_codes = 0

  def __init__(self, x_hat):
    self.x_hat, self.seen = x_hat, []

  def apply(self, params, value, method):
    del params
    if method == 'encode':
      self.seen.append(value)
      return jnp.zeros((len(value), 2)), jnp.ones((len(value), 2))
    return self.x_hat


@pytest.mark.parametrize('weight', [0.0, 0.5])
def test_labels_add_their_weighted_loss_and_do_not_count_as_intensities(weight):
  section = defaults().autoencoder
  section.kl_weight, section.labels.weight, section.labels.hidden = 0.0, weight, 0.0
  x = jnp.concatenate([jnp.full((*TRUTH.shape[:-1], 1), 0.5), TRUTH], -1)
  x_hat = x.at[..., 1:].set(0.0)
  module = Echo(x_hat)
  build = autoencoder_loss.example_losses(module, section, label_weights=np.ones(3))
  loss, metrics = build({}, {}, {'x': x}, KEYS[:2], jnp.asarray(9))
  np.testing.assert_allclose(metrics['l1'], 0)
  np.testing.assert_allclose(loss, weight * metrics['labels'], rtol=1e-6)
  assert (metrics['labels'] > 1).all() and module.seen[0].shape == x.shape
