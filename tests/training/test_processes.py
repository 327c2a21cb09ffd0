"""Several processes train what one process trains, one noise key for all of them."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# One run of a small private model; its parameters rest split over both devices.
RUN = """
import pathlib, sys
num, rank, port, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
import jax
from ldm_jax import cluster, processes
if num > 1:
  names = ('coordinator', 'num_processes', 'process_id')
  flags = dict(zip(names, (f'127.0.0.1:{port}', num, rank)))
  cluster.join(cluster.find(flags, {}), debug=True)
import jax.numpy as jnp, numpy as np, optax
from ldm_jax.config.defaults import defaults
from ldm_jax.privacy import mechanisms, secret_key
from ldm_jax.training import checkpoint, private_run, private_step, state
from ldm_jax.training.mesh import make_mesh, put_state

mesh, optimizer, folder = make_mesh(-1, 2), optax.adam(1e-2), pathlib.Path(folder)
assert jax.process_count() == num and mesh.size == 2
rng = np.random.default_rng(0)
draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
params = {'w': jnp.asarray(draw(8, 4)), 'b': jnp.asarray(draw(4))}
patients = {'x': draw(12, 8), 'y': draw(12, 4)}

def loss(trained, frozen, example, key):
  y_hat = example['x'] @ trained['w'] + trained['b'] + jax.random.normal(key, (4,))
  return jnp.mean(jnp.square(y_hat - example['y']))

scheme = mechanisms.Poisson(
  num_patients=12, batch_size=6, steps=3, clip_norm=0.5, noise_multiplier=1.3
)
step = private_step.private_step(loss, optimizer, mesh, 0.9, scheme)
first = put_state(mesh, state.create(params, optimizer))
privacy = defaults().adapt.privacy
own = None
if processes.is_first():
  own = private_run.noise_key(folder / f'key{rank}', privacy, resuming=False)
key = private_run.told_key(own, privacy.generator)
np.save(folder / f'key{rank}.npy', jax.random.key_data(key))
final = private_run.take_steps(
  step, patients, range(12), 4, first, {}, mesh=mesh, key=jax.random.key(0),
  secret_key=secret_key.new_noise_key(0), folder=folder / 'run',
  log=lambda **event: None, title='adapt', checkpoint_every=2,
)
checkpoint.save_params(folder / 'final', state.unflatten({**final.trained}))
cluster.leave(0)
"""


def start(num, folder):
  """Starts `num` processes with 2 devices in all."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = str(probe.getsockname()[1])
  folder.mkdir()
  flags = (
    f'--xla_force_host_platform_device_count={2 // num} '
    '--xla_backend_optimization_level=0'
  )
  environment = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  return [
    subprocess.Popen(
      [sys.executable, '-c', RUN, str(num), str(rank), port, str(folder)],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for rank in range(num)
  ]


def test_two_processes_equal_one(tmp_path):
  if not hasattr(jax.config, 'jax_cpu_collectives_implementation'):
    pytest.skip('this jax has no collectives between processes on CPU')
  from ldm_jax.training import checkpoint

  processes = [p for num in (1, 2) for p in start(num, tmp_path / str(num))]
  try:
    for process in processes:
      text, _ = process.communicate(timeout=600)
      assert process.returncode == 0, text[-3000:]
  finally:
    for process in processes:
      process.kill()
  one, two = (checkpoint.load_params(tmp_path / str(num) / 'final') for num in (1, 2))
  for name, leaf in one.items():
    np.testing.assert_allclose(two[name], leaf, rtol=1e-6, atol=1e-7)
  keys = [np.load(tmp_path / '2' / f'key{rank}.npy') for rank in (0, 1)]
  np.testing.assert_array_equal(*keys)
  # The others never write the secret.
  assert (tmp_path / '2' / 'key0' / 'noise_key').is_file()
  assert not (tmp_path / '2' / 'key1').exists()
