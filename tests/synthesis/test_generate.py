"""Laws of generation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.config.defaults import defaults
from ldm_jax.diffusion import process, solvers
from ldm_jax.synthesis import generate
from ldm_jax.training import encoding, networks
from ldm_jax.training.mesh import make_mesh

KEY = jax.random.key(0)


def sampler(world, **options):
  options = {'num_steps': 10} | options
  return generate.make_sampler(
    world.apply_denoiser, world.schedule, world.shape, **options
  )


def requests(n=5):
  return np.random.default_rng(1).uniform(-1, 1, (n, 2)).astype(np.float32)


def draw(world, attributes, ids=None, batch_size=2, **options):
  return generate.generate(
    sampler(world, **options),
    world.decode,
    world.params,
    attributes,
    KEY,
    batch_size=batch_size,
    request_ids=ids,
  )


@pytest.mark.parametrize('solver, guidance', [('ddim', 1.0), ('ddpm', 2.0)])
def test_a_request_gives_the_same_sample_whatever_its_batch(world, solver, guidance):
  options = {'solver': solver, 'guidance': guidance}
  whole = draw(world, requests(), **options)
  assert whole.shape == (5, 2, 8, 8, 1)
  order = np.array([3, 0, 4])
  subset = draw(world, requests()[order], ids=order, **options)
  np.testing.assert_array_equal(subset, whole[order])


def test_another_batch_size_changes_rounding_only(world):
  np.testing.assert_allclose(
    draw(world, requests(), batch_size=5), draw(world, requests()), atol=1e-4
  )


def test_one_compilation_serves_the_padded_last_batch(world):
  traces = []

  def counting(params, z_t, t, attributes, drop):
    traces.append(z_t.shape)
    return world.apply_denoiser(params, z_t, t, attributes, drop)

  sample = generate.make_sampler(counting, world.schedule, world.shape, num_steps=5)
  seen = []
  generate.generate(
    sample,
    world.decode,
    world.params,
    requests(),
    KEY,
    batch_size=2,
    progress=lambda done, total: seen.append((done, total)),
  )
  assert len(traces) == 1
  assert seen == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize('num_rows', [8, 5, 1])
@pytest.mark.parametrize(
  'options',
  [{'solver': 'ddpm'}, {'solver': 'dpmpp_2m', 'guidance': 2.0, 'drift': 0.1}],
  ids=str,
)
def test_four_devices_give_the_samples_of_one(world, num_rows, options):
  mesh, rows = make_mesh(), requests(num_rows)
  assert mesh.size == 4
  keys = generate.request_keys(KEY, np.arange(num_rows))
  # Restored checkpoints lie on the first device, and decoders close over theirs.
  params, one = jax.device_put((world.params, jnp.ones(())), jax.devices()[0])
  decode = jax.jit(lambda z: world.decode(z) * one)
  shared = sampler(world, mesh=mesh, **options)(params, rows, keys)
  alone = sampler(world, **options)(params, rows, keys)
  assert shared.shape == alone.shape
  np.testing.assert_allclose(shared, alone, rtol=1e-5, atol=1e-5)
  volumes = generate.by_rows(decode, mesh)(shared)
  np.testing.assert_allclose(volumes, decode(alone), rtol=1e-5, atol=1e-5)
  if num_rows == 8:
    assert len(shared.sharding.device_set) == 4


def test_devices_do_not_talk_while_they_sample(world):
  run = sampler(world, mesh=make_mesh(), guidance=2.0)
  keys = generate.request_keys(KEY, np.arange(8))
  text = jax.jit(run).lower(world.params, requests(8), keys).compile().as_text()
  assert 'while' in text
  for word in ('all-reduce', 'all-to-all', 'collective-permute', 'all-gather'):
    assert word not in text, word


def test_requests_with_one_id_share_their_noise(world):
  twins = draw(world, requests()[[0, 0]], ids=[7, 7])
  np.testing.assert_array_equal(twins[0], twins[1])
  other = draw(world, requests()[[0, 0]], ids=[7, 8])
  assert np.abs(other[0] - other[1]).max() > 0.01


def test_volumes_of_a_patient_share_their_noise_but_not_what_finishes_them(world):
  def finish(batch, keys):
    return batch + jax.vmap(jax.random.normal)(keys).reshape(-1, 1, 1, 1, 1)

  same = np.tile(requests(1), (4, 1))
  options = {'batch_size': 3, 'request_ids': np.array([0, 0, 1, 1])}
  arguments = sampler(world, solver='ddpm'), world.decode, world.params, same, KEY
  plain = generate.generate(*arguments, **options)
  np.testing.assert_array_equal(plain[::2], plain[1::2])
  assert np.abs(plain[0] - plain[2]).max() > 0.1
  finished = generate.generate(
    *arguments, **options, finish=finish, finish_ids=np.arange(4)
  )
  added = (finished - plain).reshape(4, -1)
  assert np.allclose(added, added[:, :1], atol=1e-5)
  assert len(np.unique(added[:, 0].round(4))) == 4
  again = generate.generate(*arguments, **options, finish=finish)
  np.testing.assert_array_equal(again[::2], again[1::2])


def test_guidance_one_is_the_conditional_sample_bit_for_bit(world):
  keys = generate.request_keys(KEY, np.arange(2))
  attributes = requests(2)

  @jax.jit
  def plain(params, attributes, keys):
    def denoise(z_t, t):
      return world.apply_denoiser(params, z_t, t, attributes, jnp.zeros(2, bool))

    z_T = solvers.initial_noise(keys, (2, *world.shape))
    return solvers.sample(denoise, z_T, world.schedule, 10, keys)

  ours = sampler(world)(world.params, attributes, keys)
  np.testing.assert_array_equal(ours, plain(world.params, attributes, keys))
  also = sampler(world, guidance=1)(world.params, attributes, keys)
  np.testing.assert_array_equal(ours, also)


def test_guidance_zero_forgets_the_request(world):
  a = draw(world, requests(2), ids=[0, 0], guidance=0.0)
  np.testing.assert_allclose(a[0], a[1], atol=1e-5)


def test_zero_drift_is_bit_identical_and_a_drift_moves_the_start(world):
  plain = draw(world, requests())
  np.testing.assert_array_equal(draw(world, requests(), drift=0.0), plain)
  np.testing.assert_array_equal(draw(world, requests(), drift=np.zeros(3)), plain)
  assert np.abs(draw(world, requests(), drift=0.2) - plain).max() > 1e-3


def test_latent_statistics_are_undone(world):
  keys = generate.request_keys(KEY, np.arange(2))
  plain = sampler(world)(world.params, requests(2), keys)
  scaled = sampler(world, **world.latents)(world.params, requests(2), keys)
  mean, std = world.latents.values()
  np.testing.assert_allclose(scaled, plain * std + mean, atol=1e-5)
  np.testing.assert_allclose(encoding.normalise(scaled, mean, std), plain, atol=1e-5)


def test_a_v_network_samples_what_the_noise_network_samples(world):
  def as_v(params, z_t, t, attributes, drop):
    eps_hat = world.apply_denoiser(params, z_t, t, attributes, drop)
    alpha_bar_t = world.schedule.at(t)
    z_0_hat = process.to_z_0(eps_hat, z_t, alpha_bar_t)
    return process.velocity(z_0_hat, eps_hat, alpha_bar_t)

  keys = generate.request_keys(KEY, np.arange(2))
  by_v = generate.make_sampler(
    as_v,
    world.schedule,
    world.shape,
    num_steps=10,
    prediction='v',
    guidance=2.0,
    drift=0.1,
  )(world.params, requests(2), keys)
  by_noise = sampler(world, guidance=2.0, drift=0.1)(world.params, requests(2), keys)
  np.testing.assert_allclose(by_v, by_noise, atol=1e-3)


def test_a_section_of_the_config_gives_the_sampler_that_it_describes(world):
  config = defaults()
  config.diffusion.prediction = 'v'
  config.sample.update(steps=3, solver='ddpm', eta=1.0, spacing='trailing', guidance=2)
  config.adapt.prior.update(steps=2, guidance=0.5)
  keys = generate.request_keys(KEY, np.arange(2))
  for section, options in (
    (config.sample, {'solver': 'ddpm', 'eta': 1.0, 'spacing': 'trailing'}),
    (config.adapt.prior, {}),
  ):
    common = {'drift': 0.1, **world.latents}
    found = generate.sampler_of(
      config, section, world.apply_denoiser, world.shape, **common
    )
    expected = generate.make_sampler(
      world.apply_denoiser,
      networks.schedule(config),
      world.shape,
      num_steps=section.steps,
      guidance=section.guidance,
      prediction='v',
      **options,
      **common,
    )
    arguments = world.params, requests(2), keys
    np.testing.assert_array_equal(found(*arguments), expected(*arguments))


def test_impossible_requests_are_refused(world):
  with pytest.raises(ValueError, match='attributes'):
    draw(world, requests()[0])
  with pytest.raises(ValueError, match='request ids'):
    draw(world, requests(), ids=[1, 2])
  with pytest.raises(ValueError, match='integers'):
    draw(world, requests(2), ids=['a', 'b'])
  with pytest.raises(ValueError, match=r'sample\.num'):
    draw(world, requests(0))
  with pytest.raises(ValueError, match='150'):
    sampler(world, num_steps=200)
  with pytest.raises(ValueError, match=r'sample\.eta'):
    sampler(world, solver='heun', eta=0.5)
  with pytest.raises(ValueError, match='3 channels'):
    sampler(world, drift=np.zeros(4))


def test_volumes_come_batch_by_batch_as_they_are_asked_for(world):
  drawn = []

  def sample(params, attributes, keys):
    drawn.append(len(keys))
    return jnp.zeros((len(keys), *world.shape))

  stream = generate.stream(
    sample, world.decode, world.params, requests(), KEY, batch_size=2
  )
  assert len(next(stream)) == 2 and drawn == [2]
  assert [len(batch) for batch in stream] == [2, 1] and drawn == [2, 2, 2]
