"""The stage autoencoder through the command line: its kinds, its report, its start."""

import json
import pathlib
import shutil

import jax
import numpy as np
import optax
import pytest

from ldm_jax import main
from ldm_jax.config.parsing import load, override
from ldm_jax.data.store import store
from ldm_jax.training import (
  autoencoder_loss,
  checkpoint,
  codebook,
  loop,
  networks,
  state,
)
from ldm_jax.training.mesh import make_mesh, put_examples, put_state
from ldm_jax.training.plain_step import plain_step

MICRO = pathlib.Path(__file__).parents[1] / 'micro.py'
PLANES = '(0, 2)'  # each plane more is compiled anew
ADVERSARIAL = {
  'autoencoder.adversarial.weight': '0.1',
  'autoencoder.adversarial.start': '3',
  'autoencoder.adversarial.channels': '(4, 4)',
  'autoencoder.adversarial.kernel': '(3, 3)',
  'autoencoder.adversarial.strides': '(2, 2)',
  'autoencoder.adversarial.planes': PLANES,
  'autoencoder.perceptual.weight': '0.1',
  'autoencoder.perceptual.channels': '(4, 8)',
  'autoencoder.perceptual.kernel': '(3, 3)',
  'autoencoder.perceptual.strides': '(2, 2)',
  'autoencoder.perceptual.planes': PLANES,
  'autoencoder.perceptual.share': '0.5',
  'autoencoder.perceptual.steps': '3',
  'autoencoder.perceptual.batch_size': '4',
}
CODEBOOK = {'autoencoder.model.num_codes': '8'}


def run(work, options, stages='prepare,autoencoder,encode'):
  flags = [f'--config.{key}={value}' for key, value in options.items()]
  return main.main(
    [f'--config={MICRO}', f'--workdir={work}', f'--stages={stages}', *flags]
  )


def events(work):
  return [json.loads(line) for line in (work / 'log.jsonl').read_text().splitlines()]


def reconstruction(work):
  return json.loads(
    (work / 'checkpoints' / 'encode' / 'reconstruction.json').read_text()
  )


@pytest.fixture(scope='module')
def both(tmp_path_factory):
  """Work folder of an autoencoder with everything: codebook, features, adversary."""
  work = tmp_path_factory.mktemp('both') / 'work'
  assert run(work, {**ADVERSARIAL, **CODEBOOK}) == 0
  return work


def test_the_discriminator_plays_from_its_start_on_and_is_not_kept(both):
  steps = [e for e in events(both) if e['stage'] == 'autoencoder' and 'loss' in e]
  assert ['discriminator' in e for e in steps] == [False] * 3 + [True] * 3
  params = checkpoint.load_params(both / 'checkpoints' / 'autoencoder')
  assert set(params) == {
    *('encoder', 'decoder', 'quant_conv_mu', 'post_quant_conv', 'quantizer')
  }


def test_the_feature_network_is_named_by_its_hash_and_learned_once(
  both, tmp_path, monkeypatch
):
  marks = [e['sha256'] for e in events(both) if 'perceptual' in e]
  assert len(marks) == 1 and len(marks[0]) == 64
  work = tmp_path / 'work'
  shutil.copytree(both, work)

  def stop(*args, **kwargs):
    raise KeyboardInterrupt

  # Of another run only what comes before its first step.
  monkeypatch.setattr(loop, 'train', stop)
  longer = {'autoencoder.steps': '7'}
  assert run(work, {**ADVERSARIAL, **CODEBOOK, **longer}, 'autoencoder') == 130
  assert [e['sha256'] for e in events(work) if 'perceptual' in e] == 2 * marks
  learned = [e for e in events(work) if e['stage'] == 'perceptual']
  assert len(learned) == len([e for e in events(both) if e['stage'] == 'perceptual'])


def test_the_report_shows_what_comes_back_and_the_use_of_the_codes(both):
  page = (both / 'report' / 'autoencoder.html').read_text()
  for words in ('Reconstructed', 'PSNR (dB)', 'of 8 codes are used', 'Alarms'):
    assert words in page
  found = reconstruction(both)
  assert found['codebook']['codes'] == 8
  assert len(found['latent']['std']) == 2
  assert found['reconstruction']['psnr']['n'] == 6


def test_weights_of_another_run_are_taken_as_they_are(finished, tmp_path, capsys):
  work = tmp_path / 'work'
  source = finished / 'checkpoints' / 'autoencoder'
  start = {'autoencoder.init': str(source), 'autoencoder.steps': '0'}
  assert run(work, start, 'prepare,autoencoder') == 0
  ours, theirs = (
    checkpoint.load_params(folder / 'checkpoints' / 'autoencoder')
    for folder in (work, finished)
  )
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_array_equal(a, b)
  wider = {'autoencoder.model.latent_channels': '3'}
  assert run(tmp_path / 'other', {**start, **wider}, 'prepare,autoencoder') == 2
  words = capsys.readouterr().err
  assert 'quant_conv' in words and 'autoencoder.init' in words


def test_a_converted_network_brings_its_own_options(finished, tmp_path):
  config = override(load(str(MICRO)), {'autoencoder.model.channels': (4, 8)})
  module = networks.autoencoder(config.autoencoder)
  options = {'channels': [4, 8], 'norm_groups': 2, 'latent_channels': 2}
  options |= {'kernels': [1, 3, 3], 'strides': [1, 2, 2], 'last_activation': True}
  folder = tmp_path / 'converted'
  described = {'class': 'Autoencoder', 'options': options}
  module = type(module)(**options)
  params = networks.initialise(module, jax.random.key(5), np.zeros((1, 5, 16, 16, 1)))
  checkpoint.save_params(folder, params)
  (folder / 'module.json').write_text(json.dumps(described))
  work = tmp_path / 'work'
  start = {'autoencoder.init': str(folder), 'autoencoder.steps': '0'}
  assert run(work, start) == 0
  assert reconstruction(work)['latent']['mean']
  found = checkpoint.load_params(work / 'checkpoints' / 'autoencoder')
  np.testing.assert_array_equal(
    found['post_quant_conv']['kernel'], params['post_quant_conv']['kernel']
  )


def test_a_denoiser_starts_from_a_converted_unet(finished, tmp_path, capsys):
  config = load(str(MICRO))
  split = store.open_split(finished / 'store', 'public')
  module = networks.denoiser(config, split.schema)
  params = networks.initial_denoiser(
    module, jax.random.key(5), (5, 8, 8, 2), len(split.schema)
  )
  folder, work = tmp_path / 'converted', tmp_path / 'work'
  checkpoint.save_params(folder, params['unet'])
  options = {**module.unet_kwargs, 'context_dim': 8, 'in_channels': 2}
  described = {'class': 'UNet', 'options': options}
  (folder / 'module.json').write_text(json.dumps(described, default=list))
  shutil.copytree(finished, work)
  start = {'diffusion.init': str(folder), 'diffusion.steps': '0'}
  # The config's own model would not fit: the converted one replaces it.
  other = {'diffusion.model.channels': '(4, 4)'}
  assert run(work, {**start, **other}, 'diffusion') == 0
  found = checkpoint.load_params(work / 'checkpoints' / 'diffusion')
  for a, b in zip(
    jax.tree.leaves(found['unet']), jax.tree.leaves(params['unet']), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  narrow = {'diffusion.conditioner.width': '16'}
  assert run(work, {**start, **narrow}, 'diffusion') == 2
  assert 'diffusion.init' in capsys.readouterr().err


def test_a_wavelet_learns_nothing_and_loses_nothing(tmp_path, capsys):
  wavelet = {
    'autoencoder.model.kind': 'wavelet',
    'autoencoder.model.latent_channels': '4',
    'autoencoder.steps': '0',
    'encode.std': 'latent',
  }
  assert run(tmp_path, wavelet) == 0
  found = reconstruction(tmp_path)
  assert found['reconstruction']['psnr']['value'] > 60
  assert len(set(found['latent']['std'])) == 1 and len(found['latent']['mean']) == 4
  assert run(tmp_path, {**wavelet, 'encode.logvar': 'True'}, 'encode') == 2
  assert 'encode.logvar' in capsys.readouterr().err
  assert run(tmp_path, {**wavelet, 'autoencoder.steps': '3'}, 'autoencoder') == 2
  assert 'learns nothing' in capsys.readouterr().err


def test_no_steps_need_weights_to_start_from(tmp_path, capsys):
  assert run(tmp_path, {'autoencoder.steps': '0'}) == 2
  assert 'autoencoder.init' in capsys.readouterr().err


def test_alarms_are_shown_logged_and_reported(tmp_path, capsys):
  # Without any reconstruction loss nothing holds the latent apart from its prior.
  only_kl = {
    'autoencoder.l1_weight': '0.0',
    'autoencoder.mse_weight': '0.0',
    'autoencoder.kl_weight': '1.0',
    'autoencoder.kl_warmup': '1',
    'autoencoder.steps': '60',
    'autoencoder.learning_rate': '0.1',
    'run.log_every': '20',
    'run.checkpoint_every': '60',
  }
  run(tmp_path, only_kl, 'prepare,autoencoder')
  alarms = [e['alarm'] for e in events(tmp_path) if 'alarm' in e]
  assert any('latent channel 0 collapsed' in alarm for alarm in alarms)
  assert 'ALARM: latent channel 0' in ''.join(capsys.readouterr())


def test_a_step_with_everything_is_the_same_on_four_devices(both):
  config = override(load(str(MICRO)), {**ADVERSARIAL, **CODEBOOK})
  section = config.autoencoder
  module, adversary = networks.autoencoder(section), networks.discriminator(section)
  split = store.open_split(both / 'store', 'public')
  x = split.volumes(np.arange(4))
  params = networks.initialise(module, jax.random.key(0), x[:1])
  params['discriminator'] = networks.initialise(adversary, jax.random.key(0), x[:1])
  losses = autoencoder_loss.example_losses(module, section, discriminator=adversary)
  batch = {'x': x, 'picked': codebook.picks(4, 8, 0)}
  # Adam would make steps of rounding errors, where a gradient is zero.
  codes = codebook.optimizer(None, decay=0.9, revive_below=0.1)
  optimizer = state.by_prefix(optax.sgd(0.1), {codebook.PREFIX: codes})
  after = []
  for devices in (1, 4):
    mesh = make_mesh(devices)
    step = plain_step(losses, optimizer, mesh, 0.9)
    start = state.create(jax.tree.map(np.array, state.flatten(params)), optimizer)
    start = put_state(mesh, start)
    for _ in range(2):
      start, metrics = step(start, {}, put_examples(mesh, batch), jax.random.key(1))
    after.append((start.trained, metrics))
  for a, b in zip(*map(jax.tree.leaves, after), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
