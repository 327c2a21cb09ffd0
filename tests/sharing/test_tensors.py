"""Laws of model.safetensors."""

import numpy as np
import pytest

from ldm_jax.sharing import tensors
from ldm_jax.training.state import flatten

RNG = np.random.default_rng(0)
PARAMS = {
  'autoencoder': {'a': {'kernel': RNG.normal(size=(3, 2)).astype(np.float32)}},
  'denoiser': {'b': RNG.normal(size=4).astype(np.float32), 'c': np.zeros((1, 0))},
}
STATISTICS = {'latent_mean': np.arange(2.0), 'latent_std': np.ones(2)}


def test_parameters_come_back_and_equal_ones_give_equal_bytes():
  content = tensors.to_bytes(PARAMS, STATISTICS, 'float32')
  assert content == tensors.to_bytes(
    dict(reversed(PARAMS.items())), STATISTICS, 'float32'
  )
  params, statistics = tensors.from_bytes(content)
  for name, tree in PARAMS.items():
    for path, leaf in flatten(tree).items():
      assert np.array_equal(flatten(params[name])[path], leaf)
  assert np.array_equal(statistics['latent_mean'], [0, 1])


def test_bfloat16_halves_the_numbers_and_rounds_them():
  params, _ = tensors.from_bytes(tensors.to_bytes(PARAMS, STATISTICS, 'bfloat16'))
  found, true = params['denoiser']['b'], PARAMS['denoiser']['b']
  assert found.dtype == np.float32
  assert 0 < np.abs(found / true - 1).max() < 2**-8


def test_what_is_no_model_is_refused():
  broken = {**PARAMS, 'denoiser': {'b': np.array([np.nan])}}
  with pytest.raises(ValueError, match='not finite'):
    tensors.to_bytes(broken, STATISTICS, 'float32')
  with pytest.raises(ValueError, match='could not be read'):
    tensors.from_bytes(b'\0' * 100)
  params, _ = tensors.from_bytes(tensors.to_bytes(PARAMS, STATISTICS, 'float32'))
  for expected in ({'b': np.zeros(5)}, {'b': np.zeros(4), 'd': np.zeros(1)}):
    with pytest.raises(ValueError, match='does not fit'):
      tensors.check_shapes('denoiser', params['denoiser'], expected)
  tensors.check_shapes('denoiser', params['denoiser'], {'b': np.zeros(4)})
