"""The codebook: nearest codes, straight gradients, statistics as gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.models.autoencoders.autoencoder import Autoencoder
from ldm_jax.models.autoencoders.quantizer import Quantizer, perplexity, send
from ldm_jax.training import codebook

MODULE = Quantizer(num_codes=5, features=3)
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(2, 2, 3, 4, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 2)
PICKED = codebook.picks(2, 5, 0)


@pytest.fixture(scope='module')
def params():
  return MODULE.init(jax.random.key(1), Z)['params']


def losses(params, z, learned_by='averages'):
  return MODULE.apply({'params': params}, z, PICKED, KEYS, learned_by, method='losses')


def test_every_voxel_becomes_its_nearest_code(params):
  codes = params['codebook']
  distances = np.linalg.norm(Z[..., None, :] - codes, axis=-1)
  expected = distances.argmin(-1)
  found = MODULE.apply({'params': params}, Z, method='indices')
  np.testing.assert_array_equal(found, expected)
  quantised = MODULE.apply({'params': params}, Z)
  np.testing.assert_allclose(quantised, codes[expected], atol=1e-6)
  np.testing.assert_allclose(
    MODULE.apply({'params': params}, quantised), quantised, atol=1e-6
  )


def test_the_gradient_passes_straight_through_the_codebook(params):
  weights = RNG.normal(size=Z.shape)

  def loss(params, z):
    return (MODULE.apply({'params': params}, z) * weights).sum()

  of_params, of_z = jax.grad(loss, (0, 1))(params, Z)
  np.testing.assert_allclose(of_z, weights, rtol=1e-6)
  assert all(not jnp.any(leaf) for leaf in jax.tree.leaves(of_params))


def test_sent_statistics_are_gradients_and_cost_nothing():
  parameter = jnp.asarray(RNG.normal(size=(4, 3)))
  statistics = jnp.asarray(RNG.normal(size=(2, 4, 3)))
  np.testing.assert_array_equal(send(parameter, statistics), [0, 0])
  gradient = jax.grad(lambda p: send(p, statistics).sum())(parameter)
  np.testing.assert_allclose(gradient, statistics.sum(0), rtol=1e-5)


def test_the_gradients_are_the_shares_and_sums_of_what_each_code_won(params):
  gradient = jax.grad(lambda p: losses(p, Z)['codebook'].mean())(params)
  won = np.asarray(MODULE.apply({'params': params}, Z, method='indices'))
  for code in range(5):
    np.testing.assert_allclose(
      gradient['usage'][code], (won == code).mean(), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
      gradient['codebook'][code],
      (Z * (won == code)[..., None]).reshape(-1, 3).sum(0) / won.size,
      rtol=1e-4,
      atol=1e-6,
    )


def test_candidates_are_voxels_of_the_batch(params):
  gradient = jax.grad(lambda p: losses(p, Z)['codebook'].mean())(params)
  for candidate in gradient['candidates']:
    assert np.abs(Z.reshape(-1, 3) - candidate).sum(1).min() < 1e-5


def test_learned_by_gradient_the_codes_are_pulled_to_their_voxels(params):
  def loss(params):
    return losses(params, Z, 'gradient')['codebook'].sum()

  found = jax.grad(loss)(params)['codebook']
  won = np.asarray(MODULE.apply({'params': params}, Z, method='indices'))
  voxels, codes = Z.reshape(-1, 3), np.asarray(params['codebook'])
  each = Z[0].size
  for code in range(5):
    pull = 2 * (codes[code] - voxels[won.ravel() == code]).sum(0) / each
    np.testing.assert_allclose(found[code], pull, rtol=1e-4, atol=1e-6)


def test_the_commitment_moves_the_encoder_only(params):
  def loss(params, z):
    return losses(params, z)['commitment'].sum()

  of_params, of_z = jax.grad(loss, (0, 1))(params, Z)
  assert not jnp.any(of_params['codebook'])
  codes = MODULE.apply({'params': params}, Z)
  np.testing.assert_allclose(of_z, 2 * (Z - codes) / Z[0].size, atol=1e-6)


@pytest.mark.parametrize(('shares', 'codes'), [([1, 1, 1, 1], 4), ([1, 0, 0, 0], 1)])
def test_perplexity_counts_the_codes_in_use(shares, codes):
  assert perplexity(jnp.array(shares, jnp.float32)) == pytest.approx(codes)


def test_an_autoencoder_with_a_codebook_decodes_codes():
  module = Autoencoder(channels=(4, 4), norm_groups=2, latent_channels=3, num_codes=6)
  x = jnp.asarray(RNG.random((2, 4, 4, 4, 1)), jnp.float32)
  variables = module.init(jax.random.key(0), x)
  z, std = module.apply(variables, x, method='encode')
  assert not jnp.any(std)
  codes = variables['params']['quantizer']['codebook']
  indices = module.apply(variables, x, method='codes')
  decode = jax.jit(lambda z: module.apply(variables, z, method='decode'))
  np.testing.assert_allclose(decode(z), decode(codes[indices]), atol=1e-5)
  assert 'quant_conv_log_sigma' not in variables['params']


def test_one_step_of_averages_is_that_of_monai(params):
  needs = 'the reference needs the extra interop'
  torch = pytest.importorskip('torch', reason=needs)
  layers = pytest.importorskip('monai.networks.layers.vector_quantizer', reason=needs)
  theirs = layers.EMAQuantizer(3, 5, 3, decay=0.9, epsilon=1e-12, ddp_sync=False)
  codes = torch.tensor(np.array(params['codebook']))
  voxels = Z[..., 0].size
  theirs.embedding.weight.data.copy_(codes)
  theirs.ema_cluster_size.fill_(voxels / 5)
  theirs.ema_w.copy_(codes * voxels / 5)
  given = torch.tensor(np.moveaxis(Z, -1, 1))
  _, loss, indices = theirs.train()(given)
  np.testing.assert_array_equal(
    indices, MODULE.apply({'params': params}, Z, method='indices')
  )
  ours = losses(params, Z)
  np.testing.assert_allclose(loss, 0.25 * ours['commitment'].mean(), rtol=1e-5)
  optimizer = codebook.optimizer(None, decay=0.9, revive_below=0.0)
  flat = {f'quantizer/{name}': leaf for name, leaf in params.items()}
  flat['quantizer/usage'] = jnp.full(5, 0.2)
  gradient = jax.grad(lambda p: losses(p, Z)['codebook'].mean())(params)
  gradient = {f'quantizer/{name}': leaf for name, leaf in gradient.items()}
  updates, _ = optimizer.update(gradient, optimizer.init(flat), flat)
  np.testing.assert_allclose(
    flat['quantizer/codebook'] + updates['quantizer/codebook'],
    theirs.embedding.weight.numpy(),
    rtol=1e-4,
    atol=1e-5,
  )
