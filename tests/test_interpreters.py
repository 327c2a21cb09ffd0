"""The programs of a run end well under every Python that can run them here."""

import pathlib
import subprocess

import pytest

from tests.interpreters import environment, interpreters

MICRO = pathlib.Path(__file__).with_name('micro.py')
# All other tests run under this Python; it stands in where there is no other.
OTHERS = interpreters()[1:] or interpreters()
# As a user's process: oneDNN, kept memory, and a cache that takes all programs.
SETTINGS = {
  'LDM_JAX_ONEDNN': '1',
  'LDM_JAX_KEEP_MEMORY': '1',
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  'JAX_RAISE_PERSISTENT_CACHE_ERRORS': '1',
}
# One convolution stands for each network: what the programs of the stages share with
# it is the call of oneDNN, under vmap, in a loop, with gradients, and over devices.
PROGRAMS = """
from ldm_jax import main
main.set_up_jax()
import jax, jax.numpy as jnp, numpy as np, optax
from ldm_jax.diffusion import inversion, schedules, solvers
from ldm_jax.models.conv.conv import choose_lowering, convolve
from ldm_jax.privacy import canaries, mechanisms, secret_key
from ldm_jax.training import private_step, state
from ldm_jax.training.mesh import make_mesh, put_examples, put_state

assert choose_lowering('cpu', (4, 4, 4), (3, 3, 3)) in ('onednn', 'onednn_bfloat16')
kernel, z = jnp.full((3, 3, 3, 2, 2), 0.02), jnp.ones((2, 4, 4, 4, 2))
schedule = schedules.schedule('linear', 10, 1e-3, 0.1)
denoise = lambda z_t, t: convolve(z_t, kernel)

sample = jax.jit(lambda z: solvers.sample(denoise, z, schedule, 3))
edit = jax.jit(lambda z: sample(inversion.ddim_invert_path(denoise, z, schedule, 3)[0]))
assert np.isfinite(sample(z)).all() and np.isfinite(edit(z)).all()


def loss(trained, frozen, example, key):
  return jnp.sum(convolve(example['z'][None], trained['kernel']) ** 2)


def step_of(loss, params, examples):
  scheme = mechanisms.Poisson(
    num_patients=4, batch_size=2, steps=2, clip_norm=1.0, noise_multiplier=1.0
  )
  mesh, optimizer = make_mesh(1), optax.sgd(0.1)
  step = private_step.private_step(loss, optimizer, mesh, 0.9, scheme, microbatch=2)
  rows, mask = np.arange(4, dtype=np.int32), np.ones(4, bool)
  chunk = put_examples(mesh, (examples, mask, rows))
  first = put_state(mesh, private_step.begin(state.create(params, optimizer), scheme))
  key = jax.random.key(0)
  last = step(first, {}, (chunk,), key, secret_key.new_noise_key(0))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last.trained))


params = {'kernel': np.array(kernel)}  # a step gives its own parameters away
patients = {'z': np.ones((4, 4, 4, 4, 2), np.float32)}
step_of(loss, dict(params), patients)
audited = canaries.with_canaries(loss, 1.0)
few = canaries.appended({'z': patients['z'][:2]}, 2)
step_of(audited, {**params, canaries.LEAF: np.zeros(2, np.float32)}, few)
print('ended well')
"""


def run(python, folder, *arguments):
  """Another process; returns what it printed."""
  told = subprocess.run(
    [python, *arguments],
    env=environment(
      python,
      **SETTINGS,
      HOME=str(folder),
      JAX_COMPILATION_CACHE_DIR=str(folder / 'jax'),
    ),
    capture_output=True,
    text=True,
  )
  assert told.returncode == 0, told.stderr[-2000:]
  assert 'persistent compilation cache' not in told.stderr
  assert list((folder / 'jax').glob('*-cache'))
  return told.stdout


@pytest.mark.parametrize('python', OTHERS)
def test_the_first_stages_end_well(python, tmp_path):
  flags = {
    'autoencoder.steps': 1,
    'autoencoder.model.channels': '(4,)',
    'autoencoder.model.kernels': '((1,3,3),)',
    'autoencoder.model.strides': '()',
    'data.preprocess.shape': '(5,8,8)',
  }
  run(
    python,
    tmp_path,
    *('-m', 'ldm_jax.main', f'--config={MICRO}', f'--workdir={tmp_path / "work"}'),
    '--stages=prepare,autoencoder',
    *(f'--config.{key}={value}' for key, value in flags.items()),
  )


@pytest.mark.parametrize('python', OTHERS)
def test_sampling_editing_private_steps_and_the_audits_end_well(python, tmp_path):
  assert run(python, tmp_path, '-c', PROGRAMS).endswith('ended well\n')
