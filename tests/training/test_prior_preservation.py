"""Laws of prior preservation: class samples beside a patient's volumes, weighted.

With a network and its gradients: test_methods.py.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.training import prior_preservation

KEY, LATENT = jax.random.key(0), (2, 4, 4, 2)


def squares(params, z, conditions, keys, untold=None):
  """Stands for the losses: each row's mean square times what the parameters say."""
  del conditions, keys, untold
  return params['scale'] * jnp.mean(z**2, axis=(1, 2, 3, 4))


def test_the_mean_loss_of_the_drawn_class_samples_is_added_with_its_weight():
  samples = {'z': 3 * jnp.ones((5, *LATENT)), 'conditions': jnp.zeros((5, 2))}
  loss = prior_preservation.preserving(squares, 4, 0.5)
  z = jnp.stack([jnp.zeros(LATENT), jnp.ones(LATENT)])
  params, keys = {'scale': 2.0, 'prior': samples}, jax.random.split(KEY, 2)
  found = loss(params, z, jnp.zeros((2, 2)), keys)
  np.testing.assert_allclose(found, [0 + 0.5 * 18, 2 + 0.5 * 18])


def test_which_samples_are_drawn_depends_on_the_key_and_on_no_scan():
  samples = {
    'z': jnp.arange(50.0)[:, None, None, None, None] * jnp.ones(LATENT),
    'conditions': jnp.zeros((50, 2)),
  }
  loss = prior_preservation.preserving(squares, 3, 1.0)
  params, conditions = {'scale': 1.0, 'prior': samples}, jnp.zeros((1, 2))
  of_class = lambda z, seed: (
    loss(params, z, conditions, jax.random.split(jax.random.key(seed), 1))
    - jnp.mean(z**2)
  )
  zeros, ones = jnp.zeros((1, *LATENT)), jnp.ones((1, *LATENT))
  np.testing.assert_allclose(of_class(zeros, 0), of_class(ones, 0), rtol=1e-5)
  assert of_class(zeros, 0) != of_class(zeros, 1)


def test_the_class_lacks_what_else_the_conditions_of_a_patient_tell():
  seen = []

  def losses(params, z, conditions, keys, untold):
    seen.append((conditions, untold))
    return jnp.zeros(len(z))

  samples = {'z': jnp.zeros((3, *LATENT)), 'conditions': jnp.ones((3, 2))}
  of_patient = jax.random.split(KEY, 2)
  found = prior_preservation.preserving(losses, 1, 1.0)(
    {'prior': samples}, jnp.zeros((2, *LATENT)), jnp.full((2, 4), 5.0), of_patient
  )
  ((conditions, untold),) = seen
  assert found.shape == (2,)
  np.testing.assert_array_equal(untold, [False, False, True])
  np.testing.assert_array_equal(conditions[:2], 5.0)
  np.testing.assert_array_equal(conditions[2], [1, 1, np.nan, np.nan])
