"""Laws of the settings that leave: enough to sample, no path, no cohort."""

import json

import numpy as np

from ldm_jax.config import parsing
from ldm_jax.data.cohorts.attributes import CARDIAC_SCHEMA
from ldm_jax.sharing import settings
from ldm_jax.training import networks
from tests import micro


def test_the_restored_config_builds_the_same_networks_and_process():
  config = micro.get_config()
  plain = json.loads(json.dumps(settings.cut(config, None)))
  restored = settings.restore(plain, micro.SHAPE)
  for build in (networks.schedule, lambda c: networks.autoencoder(c.autoencoder)):
    assert str(build(restored)) == str(build(config))
  assert settings.denoiser(restored, CARDIAC_SCHEMA, {}) == networks.denoiser(
    config, CARDIAC_SCHEMA
  )
  for key in ('sample.steps', 'sample.solver', 'counterfactual.steps', 'seed'):
    assert parsing.flatten(restored)[key] == parsing.flatten(config)[key]


def test_nothing_of_data_training_or_private_budget_leaves():
  config = micro.get_config()
  config.data.private.root = config.data.public.root = '/canary/7391'
  config.diffusion.text.files = '/canary/{id}.npy'
  config.counterfactual.source = config.sample.requests = '/canary/table.csv'
  plain = settings.cut(config, None)
  assert 'canary' not in json.dumps(plain)
  assert plain['settings']['diffusion']['text']['files'] == settings.GIVEN
  assert set(plain['settings']) == {
    *('seed', 'autoencoder', 'diffusion', 'adapt', 'sample', 'counterfactual')
  }
  assert not {'privacy', 'steps', 'batch_size'} & set(plain['settings']['adapt'])


def test_the_drift_of_sampling_comes_back_also_one_a_channel():
  config = micro.get_config()
  config.adapt.drift.variant = 'posterior_constant'
  for value in (0.5, [0.5, -0.25]):
    plain = settings.cut(config, np.asarray(value))
    drift = settings.drift_of(settings.restore(plain, micro.SHAPE), True)
    assert np.array_equal(drift.value, value)
    assert drift.variant == 'posterior_constant'
  assert settings.drift_of(settings.restore(plain, micro.SHAPE), False) is None
  none = settings.restore(settings.cut(config, None), micro.SHAPE)
  assert settings.drift_of(none, True) is None


def test_networks_of_converted_weights_keep_their_own_options():
  options = {'channels': [4, 8], 'norm_groups': 2, 'in_channels': 9}
  config = settings.restore(settings.cut(micro.get_config(), None), micro.SHAPE)
  module = settings.denoiser(config, CARDIAC_SCHEMA, {'diffusion': options})
  assert dict(module.unet_kwargs) == {'channels': (4, 8), 'norm_groups': 2}
  own = {'latent_channels': 5, 'channels': (4, 8), 'norm_groups': 2}
  assert settings.autoencoder(config, {'autoencoder': own}).latent_channels == 5
  module = settings.denoiser(config, CARDIAC_SCHEMA, {'autoencoder': own})
  assert module.in_channels == module.out_channels == 5
