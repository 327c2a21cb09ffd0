"""Laws of the noise: its size, its independence, its repeatability, its secret."""

import os
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.privacy import noise, secret_key

ZERO = {'a': jnp.zeros((1000, 600)), 'b': jnp.zeros((400_000,)), 'c': jnp.zeros(())}
noisy = jax.jit(lambda key, step: noise.privatise(ZERO, key, step, 1.3, 0.5, 8.0))


def flat(tree):
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_noise_on_a_zero_gradient_has_the_calibrated_deviation():
  draws = flat(noisy(secret_key.new_noise_key(0), 3))
  assert draws.size > 1_000_000
  assert np.std(draws) == pytest.approx(1.3 * 0.5 / 8, rel=0.01)
  assert abs(np.mean(draws)) < 5 * 1.3 * 0.5 / 8 / np.sqrt(draws.size)


def test_noise_is_uncorrelated_across_steps_and_leaves():
  key = secret_key.new_noise_key(0)
  first, second = noisy(key, 0), noisy(key, 1)
  a, b = np.ravel(first['a'])[:400_000], np.ravel(first['b'])
  limit = 5 / np.sqrt(400_000)
  assert abs(np.corrcoef(a, b)[0, 1]) < limit
  assert abs(np.corrcoef(b, np.ravel(second['b']))[0, 1]) < limit
  assert abs(np.corrcoef(b[:-1], b[1:])[0, 1]) < limit


def test_a_resumed_step_repeats_its_noise():
  key = secret_key.new_noise_key(5)
  np.testing.assert_array_equal(flat(noisy(key, 7)), flat(noisy(key, jnp.int32(7))))


def test_every_step_draws_one_vector_from_its_own_key(normal_draws):
  small = {'a': jnp.zeros(2), 'b': jnp.zeros((2, 3)), 'c': jnp.zeros(())}
  key = secret_key.new_noise_key()
  for step in range(20):
    noise.add_noise(small, key, step, 1.0, 1.0)
  jax.effects_barrier()
  assert len(normal_draws) == len(set(normal_draws)) == 20
  assert {size for _, size in normal_draws} == {9}


def test_every_leaf_gets_its_own_part_of_the_draw_in_its_own_shape():
  tree = {'a': jnp.ones(2), 'b': jnp.zeros((2, 3)), 'c': jnp.zeros(())}
  key = secret_key.new_noise_key(0)
  out = noise.add_noise(tree, key, 4, 1.5, 2.0)
  eps = 3.0 * noise.normals(key, 4, 9)
  cell = float(noise.grid(1.5, 2.0))
  np.testing.assert_allclose(out['a'], 1 + eps[:2], atol=cell)
  np.testing.assert_allclose(out['b'], eps[2:8].reshape(2, 3), atol=cell)
  np.testing.assert_allclose(out['c'], eps[8], atol=cell)


def test_the_sum_is_divided_by_the_expected_batch_and_not_rescaled_before():
  total = {'w': jnp.full((3,), 4.0, jnp.bfloat16)}
  out = noise.privatise(
    total, secret_key.new_noise_key(0), 0, 0, 1.0, 8.0, clip_only=True
  )
  np.testing.assert_array_equal(out['w'], np.full(3, 0.5))
  assert out['w'].dtype == jnp.float32


@pytest.mark.parametrize('sigma', [0, -1.0, float('nan'), float('inf')])
def test_noise_multipliers_without_privacy_are_refused(sigma):
  key = secret_key.new_noise_key(0)
  with pytest.raises(ValueError, match='noise multiplier'):
    noise.privatise({'w': jnp.zeros(2)}, key, 0, sigma, 1.0, 8.0)


@pytest.mark.parametrize('expected_batch', [0, -2.0, float('nan')])
def test_an_expected_batch_that_is_not_positive_is_refused(expected_batch):
  key = secret_key.new_noise_key(0)
  with pytest.raises(ValueError, match=r'adapt\.privacy\.batch_size'):
    noise.privatise({'w': jnp.zeros(2)}, key, 0, 1.0, 1.0, expected_batch)


def key_bits(key):
  return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_keys_come_from_the_operating_system_unless_a_seed_fixes_them():
  assert len({key_bits(secret_key.new_noise_key()) for _ in range(20)}) == 20
  assert key_bits(secret_key.new_noise_key(3)) == key_bits(secret_key.new_noise_key(3))
  assert key_bits(secret_key.new_noise_key(3)) != key_bits(secret_key.new_noise_key(4))
  assert key_bits(secret_key.new_noise_key(3)) != key_bits(jax.random.key(3))
  assert 'FIXED SEED 3' in secret_key.describe_randomness(3)
  assert 'FIXED' not in secret_key.describe_randomness()
  assert 'destroyed' not in secret_key.describe_randomness()
  assert 'was destroyed' in secret_key.describe_randomness(destroyed=True)


def test_the_key_file_is_private_round_trips_and_is_destroyed(tmp_path):
  path = tmp_path / 'noise.key'
  key = secret_key.new_noise_key()
  secret_key.save_key(path, key)
  assert stat.S_IMODE(path.stat().st_mode) == 0o600
  assert key_bits(secret_key.load_key(path)) == key_bits(key)
  assert os.listdir(tmp_path) == ['noise.key']
  os.link(path, tmp_path / 'same.bytes')
  secret_key.save_key(path, secret_key.new_noise_key())
  assert set((tmp_path / 'same.bytes').read_text()) == {'0'}, 'what it replaces is gone'
  (tmp_path / 'same.bytes').unlink()
  secret_key.destroy_key(path)
  secret_key.destroy_key(path)
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
  'content', ['', 'threefry2x32 00', 'rbg 0011223344556677', 'é']
)
def test_a_damaged_or_open_key_file_is_refused(tmp_path, content):
  path = tmp_path / 'noise.key'
  with pytest.raises(ValueError, match='cannot be read'):
    secret_key.load_key(path)
  path.write_text(content)
  path.chmod(0o600)
  with pytest.raises(ValueError, match='noise key'):
    secret_key.load_key(path)
  secret_key.save_key(path, secret_key.new_noise_key())
  path.chmod(0o644)
  with pytest.raises(ValueError, match='chmod 600'):
    secret_key.load_key(path)


def test_the_sampling_secret_follows_the_key_without_showing_it():
  key = secret_key.new_noise_key(1)
  secret = secret_key.sampling_secret(key)
  assert secret == secret_key.sampling_secret(secret_key.new_noise_key(1))
  assert secret != secret_key.sampling_secret(secret_key.new_noise_key(2))
  assert np.asarray(jax.random.key_data(key)).tobytes() not in secret
