"""Laws of the draws by ChaCha20: the published keystream, uniform, all from the key."""

import itertools
import json
import sys

import jax
import numpy as np
import pytest
from scipy import stats

from ldm_jax.config import checks, parsing
from ldm_jax.config.defaults import defaults
from ldm_jax.privacy import (
  chacha20,
  discrete_gaussian,
  key_origin,
  mechanisms,
  privacy_json,
  releases,
  sampling,
  secret_key,
)
from ldm_jax.privacy.ledger import release_id
from ldm_jax.training import private_run


@pytest.fixture(autouse=True)
def cryptography():
  return pytest.importorskip('cryptography')


def new(seed=None):
  return secret_key.new_noise_key(seed, 'chacha20')


def test_the_keystream_is_that_of_the_specification(monkeypatch):
  """The first block of an all-zero key and nonce. [RFC8439, A.1, vector 1]"""
  zero = type('Zero', (), {'digest': lambda self: bytes(32)})
  monkeypatch.setattr(chacha20.hashlib, 'sha256', lambda material: zero())
  assert chacha20.Keystream(b'').take(16).hex() == '76b8e0ada0f13d90405d6ae55386bd28'


def test_draws_are_uniform_and_follow_from_the_secret_alone():
  draws = chacha20.Draws(b'a')
  numbers, found = draws.random(20_000), draws.integers(5, size=20_000)
  assert stats.kstest(numbers, 'uniform').pvalue > 1e-3
  assert stats.chisquare(np.bincount(found, minlength=5)).pvalue > 1e-3
  pairs = [tuple(sorted(draws.choice(range(4), 2, replace=False))) for _ in range(3000)]
  _, counts = np.unique(pairs, axis=0, return_counts=True)
  assert counts.size == 6 and stats.chisquare(counts).pvalue > 1e-3
  again, other = chacha20.Draws(b'a').random(50), chacha20.Draws(b'b').random(50)
  np.testing.assert_array_equal(numbers[:50], again)
  assert not np.any(numbers[:50] == other)
  assert 'secret' in repr(chacha20.Keystream(b'a'))


def test_the_secret_has_256_bits_which_the_key_file_keeps(tmp_path):
  found = {np.asarray(jax.random.key_data(new())).tobytes() for _ in range(20)}
  assert len(found) == 20 and {len(each) for each in found} == {32}
  key, path = new(), tmp_path / 'noise_key'
  secret_key.save_key(path, key)
  assert path.read_text().startswith('chacha20 ')
  kept = secret_key.load_key(path)
  assert secret_key.generator_of(kept) == 'chacha20'
  np.testing.assert_array_equal(*map(jax.random.key_data, (kept, key)))
  path.write_text(path.read_text()[:-9] + '\n')
  with pytest.raises(ValueError, match='damaged'):
    secret_key.load_key(path)


def test_each_word_of_the_secret_moves_the_key_of_the_device_and_every_draw():
  def outcomes(key):
    sampler = scheme.sampler(secret_key.sampling_secret(key), 'chacha20')
    rows = np.zeros((3, 4))
    return (
      jax.random.key_data(secret_key.device_key(key)),
      np.concatenate([sampler.draw(step) for step in range(20)]),
      discrete_gaussian.noisy_sum(rows, 1.0, 1.0, releases.release_key(key, 'a')),
    )

  scheme = mechanisms.Poisson(
    num_patients=50, batch_size=10, steps=20, clip_norm=1.0, noise_multiplier=1.0
  )
  first = outcomes(new(0))
  assert all(map(np.array_equal, first, outcomes(new(0))))
  words = np.asarray(jax.random.key_data(new(0)))
  for place in np.ndindex(words.shape):
    changed = words.copy()
    changed[place] ^= 1
    other = outcomes(jax.random.wrap_key_data(changed, impl='threefry2x32'))
    assert not any(map(np.array_equal, first, other)), place


def test_a_threefry_key_is_the_key_of_the_device_itself():
  key = secret_key.new_noise_key(0)
  assert secret_key.device_key(key) is key
  assert secret_key.generator_of(key) == 'threefry'


@pytest.mark.parametrize(
  ('kind', 'more'),
  [
    (sampling.PoissonSampler, ()),
    (sampling.TruncatedPoissonSampler, (12,)),
    (sampling.CyclicPoissonSampler, (4,)),
  ],
)
def test_every_sampler_draws_with_its_probability_and_not_as_philox_does(kind, more):
  sampler, other = (
    kind(40, 0.2, b's', *more, generator=name) for name in ('chacha20', 'threefry')
  )
  drawn = [sampler.draw(step) for step in range(400)]
  share = np.mean([each.size for each in drawn]) / 40
  expected = 0.05 if kind is sampling.CyclicPoissonSampler else 0.2
  assert share == pytest.approx(expected, abs=0.012)
  assert any(not np.array_equal(sampler.draw(t), other.draw(t)) for t in range(5))
  np.testing.assert_array_equal(sampler.draw(3), drawn[3])


def test_the_generator_is_in_the_statement_and_in_no_id():
  made = {**releases.planned('mean', 3.0, 1.0), key_origin.FIELD: 'operating system'}
  named = {**made, **secret_key.recorded('chacha20')}
  assert release_id('run', made) == release_id('run', named)
  assert secret_key.recorded('threefry') == {}
  said = secret_key.describe_randomness(None, 'chacha20')
  found = privacy_json.build(
    [{**named, 'id': 'a'}],
    delta=1e-5,
    num_patients=100,
    randomness=said,
    config_sha256='',
  )
  assert found['releases'][0]['generator'] == 'chacha20'
  assert 'ChaCha20' in found['randomness'] and '256-bit key' in found['randomness']
  assert 'threefry2x32' in json.dumps(found['not_covered'])


def test_without_the_library_it_is_refused_before_anything_runs(monkeypatch):
  config = parsing.override(defaults(), {'adapt.privacy.generator': 'chacha20'})
  config.data.private.layout = 'phantom_cardiac'
  checks.check(config)
  for name in [each for each in sys.modules if each.startswith('cryptography')]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, 'cryptography', None)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(ValueError, match=r'adapt\.privacy\.generator.*pip install'):
    checks.check(config)
  with pytest.raises(ValueError, match='pip install'):
    new()


def test_a_run_draws_its_patients_by_chacha20_and_its_noise_by_one_device_key(
  tmp_path, monkeypatch
):
  scheme = mechanisms.Poisson(
    num_patients=50, batch_size=10, steps=3, clip_norm=1.0, noise_multiplier=1.0
  )
  key, seen = new(), []

  def step(state, frozen, chunks, key, noise_key):
    seen.append((noise_key, [own[mask].tolist() for _, mask, own in chunks]))
    return state

  step.scheme = scheme
  monkeypatch.setattr(private_run.private_steps, 'begin', lambda state, scheme: state)
  monkeypatch.setattr(private_run, 'put_examples', lambda mesh, tree: tree)
  monkeypatch.setattr(
    private_run.loop,
    'train',
    lambda take, state, steps, **_: [take(state, number) for number in range(steps)],
  )
  private_run.take_steps(
    step,
    {'x': np.zeros((50, 1))},
    range(50),
    8,
    None,
    {},
    mesh=None,
    key=None,
    secret_key=key,
    log_every=1,
  )
  sampler = scheme.sampler(secret_key.sampling_secret(key), 'chacha20')
  own = private_run.numbers(range(50))
  for number, (noise_key, chunks) in enumerate(seen):
    assert noise_key.shape == ()
    assert list(itertools.chain(*chunks)) == own[sampler.draw(number)].tolist()
