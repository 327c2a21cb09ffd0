"""DDIM and DDPM loops equal those of the reference implementation (MONAI 1.6)."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import process, schedules, solvers

SCHEDULE = schedules.schedule('scaled_linear', 1000, 1.5e-3, 1.95e-2)
LINEAR = schedules.schedule('linear', 1000)
KINDS = {'epsilon': 'epsilon', 'sample': 'sample', 'v_prediction': 'v'}


def assert_close(ours, reference):
  """Within 1e-5 of the largest value; unclipped noise loops reach 150."""
  np.testing.assert_allclose(ours, reference, atol=1e-5 * np.abs(reference).max())


@pytest.fixture(scope='module')
def loops(golden):
  return dict(np.load(golden / 'schedulers.npz'))


each_ddim_loop = pytest.mark.parametrize(
  'name, prediction, clip, to_one',
  [
    (f'loop/ddim_{name}_clip{int(clip)}_a1{int(to_one)}', prediction, clip, to_one)
    for name, prediction in KINDS.items()
    for clip in (True, False)
    for to_one in (True, False)
  ]
  + [('loop/ddim', 'epsilon', True, True)],
)


@each_ddim_loop
def test_whole_ddim_runs_equal_the_reference(loops, name, prediction, clip, to_one):
  run = LINEAR if name == 'loop/ddim' else SCHEDULE
  run = run if to_one else run.replace(clean=run.alpha_bar[0])
  ours = solvers.sample(
    lambda z_t, t: jnp.asarray(loops['loop/model_output']),
    jnp.asarray(loops['loop/sample']),
    run,
    50,
    prediction=prediction,
    spacing='monai',
    clip_z_0=1.0 if clip else None,
    clip_noise=False,
  )
  assert_close(ours, loops[f'{name}/sampling_loop'])


@each_ddim_loop
def test_single_ddim_steps_equal_the_reference(loops, name, prediction, clip, to_one):
  output, z = loops['loop/model_output'], loops['loop/sample']
  run = LINEAR if name == 'loop/ddim' else SCHEDULE
  run = run if to_one else run.replace(clean=run.alpha_bar[0])
  for t in range(50):
    a_t, a_s = run.at(t), run.at(t - 20)
    z_0_hat, eps_hat = process.to_pair(output, z, a_t, prediction)
    z_0_hat = jnp.clip(z_0_hat, -1, 1) if clip else z_0_hat
    z = solvers.ddim_move(z_0_hat, eps_hat, a_t, a_s)
  assert_close(z, loops[f'{name}/test_loop'])


def test_the_ancestral_loop_equals_the_reference(loops):
  output, z = loops['loop/model_output'], loops['loop/sample']
  for t, noise in enumerate(loops['loop/ddpm/noises']):
    a_t, a_s = LINEAR.at(t), LINEAR.at(t - 1)
    z_0_hat = jnp.clip(process.to_z_0(output, z, a_t), -1, 1)
    z = solvers.ddpm_move(z_0_hat, z, a_t, a_s, noise, LINEAR.between(t, t - 1))
  assert_close(z, loops['loop/ddpm/test_loop'])
