"""Laws of checkpoints: complete, independent of the devices, never half."""

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax.training import checkpoint, state
from ldm_jax.training.mesh import make_mesh, state_shardings

OPTIMIZER = optax.adam(1e-2)
FOLDER_SIZE = shutil.disk_usage


def some_state(params, mesh, start, steps=3):
  current = start(params, OPTIMIZER, mesh)
  for _ in range(steps):
    gradient = jax.tree.map(jnp.sin, current.trained)
    current = state.advance(current, gradient, OPTIMIZER, 0.9)
  return jax.device_put(current, state_shardings(mesh, current))


def restored(folder, params, mesh, start):
  empty = start(jax.tree.map(jnp.zeros_like, params), OPTIMIZER, mesh)
  checkpoints = checkpoint.Checkpoints(folder)
  try:
    return checkpoints.restore(empty, state_shardings(mesh, empty))
  finally:
    checkpoints.close()


def save(folder, step, current):
  checkpoints = checkpoint.Checkpoints(folder)
  try:
    checkpoints.save(step, current)
  finally:
    checkpoints.close()


@pytest.mark.parametrize(
  ('before', 'after'),
  [((1, 1), (4, 1)), ((4, 1), (1, 1)), ((1, 4), (1, 1)), ((1, 1), (2, 2))],
)
def test_a_state_is_the_same_bits_on_any_devices(
  tmp_path, params, start, before, after
):
  saved = some_state(params, make_mesh(*before), start)
  save(tmp_path, 3, saved)
  mesh = make_mesh(*after)
  found = restored(tmp_path, params, mesh, start)
  jax.tree.map(np.testing.assert_array_equal, found, saved)
  for leaf, expected in zip(
    jax.tree.leaves(found),
    jax.tree.leaves(state_shardings(mesh, found)),
    strict=True,
  ):
    assert leaf.sharding.is_equivalent_to(expected, leaf.ndim)


def test_several_averages_are_restored_each_in_its_place(tmp_path, params):
  mesh, decays = make_mesh(2), (0.5, 0.9)
  current = state.create(params, OPTIMIZER, decays)
  gradient = jax.tree.map(jnp.ones_like, params)
  current = state.advance(current, gradient, OPTIMIZER, decays)
  save(tmp_path, 1, jax.device_put(current, state_shardings(mesh, current)))
  empty = state.create(jax.tree.map(jnp.zeros_like, params), OPTIMIZER, decays)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  found = checkpoints.restore(empty, state_shardings(mesh, empty))
  checkpoints.close()
  jax.tree.map(np.testing.assert_array_equal, found, current)
  assert isinstance(found.ema, tuple)


def test_a_folder_without_a_checkpoint_gives_the_state_back(tmp_path, params, start):
  mesh = make_mesh(1)
  current = some_state(params, mesh, start)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  found = checkpoints.restore(current, state_shardings(mesh, current))
  checkpoints.close()
  assert found is current


def kept(folder):
  return sorted(path.name for path in (folder / 'state').iterdir())


def test_the_two_latest_checkpoints_are_kept_and_of_a_run_that_is_over_one(
  tmp_path, params, start
):
  mesh = make_mesh(1)
  for steps in (1, 2, 3):
    save(tmp_path, steps, some_state(params, mesh, start, steps))
  assert int(restored(tmp_path, params, mesh, start).step) == 3
  assert kept(tmp_path) == ['2', '3']
  notes = lambda: sorted(path.name for path in tmp_path.glob('state-*'))
  assert notes() == ['state-2.files.json', 'state-3.files.json']
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.keep_latest()
  checkpoints.close()
  assert kept(tmp_path) == ['3'] and notes() == ['state-3.files.json']


def largest(folder):
  files = (path for path in folder.rglob('*') if path.is_file())
  return max(files, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize('is_noted', [True, False], ids=['noted', 'of before'])
def test_a_damaged_state_falls_back_to_the_one_before_and_then_to_none(
  tmp_path, params, start, capfd, is_noted
):
  mesh = make_mesh(1)
  for steps in (1, 2):
    save(tmp_path, steps, some_state(params, mesh, start, steps))
  if not is_noted:
    for note in tmp_path.glob('state-*.files.json'):
      note.unlink()
  for step, left, words in ((2, 1, 'goes on from step 1'), (1, 0, 'begins anew')):
    file = largest(tmp_path / 'state' / f'{step}')
    os.truncate(file, file.stat().st_size // 2)
    assert int(restored(tmp_path, params, mesh, start).step) == left
    said = capfd.readouterr()
    assert f'after step {step}' in said.out and words in said.out
    assert len(said.out) < 700 and 'Traceback' not in said.out + said.err
    assert (tmp_path / f'damaged-{step}').is_dir(), 'it is moved, not deleted'
  assert kept(tmp_path) == []


def test_a_state_that_memory_cannot_hold_is_not_called_damaged(
  tmp_path, params, start, monkeypatch
):
  mesh = make_mesh(1)
  save(tmp_path, 2, some_state(params, mesh, start, 2))

  def exhausted(*args):
    raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes')

  monkeypatch.setattr(checkpoint.Checkpoints, 'read', exhausted)
  with pytest.raises(RuntimeError, match='RESOURCE_EXHAUSTED'):
    restored(tmp_path, params, mesh, start)
  assert kept(tmp_path) == ['2']


@pytest.mark.parametrize('is_noted', [True, False], ids=['noted', 'of before'])
@pytest.mark.parametrize('size', [0, 0.5])
def test_parameters_that_are_cut_are_named_in_one_paragraph(
  tmp_path, params, size, is_noted
):
  folder = tmp_path / 'checkpoints' / 'diffusion'
  checkpoint.save_params(folder, state.unflatten(params))
  if not is_noted:
    (folder / 'params.files.json').unlink()
  file = largest(folder / 'params')
  os.truncate(file, int(file.stat().st_size * size))
  for read in (
    checkpoint.load_params,
    lambda folder: checkpoint.load_into(folder, state.unflatten(params), 'a.init'),
  ):
    with pytest.raises(ValueError, match='is damaged') as told:
      read(folder)
    assert str(folder / 'params') in str(told.value) and len(str(told.value)) < 700
    assert '--stages=diffusion' in str(told.value) or 'from a copy' in str(told.value)


def test_a_checkpoint_cut_off_in_the_middle_is_passed_over(tmp_path, params, start):
  mesh = make_mesh(1)
  save(tmp_path, 2, some_state(params, mesh, start, 2))
  # What a kill leaves: a folder that was not renamed yet.
  whole = tmp_path / 'state' / '2'
  shutil.copytree(whole, tmp_path / 'state' / '4.orbax-checkpoint-tmp')
  assert int(restored(tmp_path, params, mesh, start).step) == 2


def test_a_full_disk_keeps_the_checkpoint_before_and_says_so(
  tmp_path, params, start, monkeypatch
):
  mesh = make_mesh(1)
  save(tmp_path, 2, some_state(params, mesh, start, 2))
  full = lambda path: FOLDER_SIZE(path)._replace(free=1000)
  monkeypatch.setattr(shutil, 'disk_usage', full)
  words = r'state could not be written.*No space left.*same command continues'
  with pytest.raises(OSError, match=words) as raised:
    save(tmp_path, 3, some_state(params, mesh, start, 3))
  assert raised.value.errno == 28
  with pytest.raises(OSError, match='params could not be written'):
    checkpoint.save_params(tmp_path, params)
  monkeypatch.undo()
  assert int(restored(tmp_path, params, mesh, start).step) == 2
  assert not (tmp_path / 'params').exists()


def test_what_the_writer_says_of_a_full_disk_becomes_one_error(
  tmp_path, params, monkeypatch
):
  """As tensorstore says it: a ValueError with the system's number inside."""

  def refuse(*args, **kwargs):
    raise ValueError("RESOURCE_EXHAUSTED: Failed to write [os_error_code='28']")

  monkeypatch.setattr(checkpoint.ocp.StandardCheckpointer, 'save', refuse)
  with pytest.raises(OSError, match=os.strerror(28)):
    checkpoint.save_params(tmp_path, params)


def test_an_error_that_is_not_the_disks_stays_what_it_is(tmp_path, params, monkeypatch):
  def refuse(*args, **kwargs):
    raise ValueError('shapes differ')

  monkeypatch.setattr(checkpoint.ocp.StandardCheckpointer, 'save', refuse)
  with pytest.raises(ValueError, match='shapes differ'):
    checkpoint.save_params(tmp_path, params)


def test_parameters_round_trip_nested_and_without_optimiser(tmp_path, params):
  nested = state.unflatten(params)
  checkpoint.save_params(tmp_path, nested)
  found = checkpoint.load_params(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, found, nested)
  assert jax.tree.structure(found) == jax.tree.structure(nested)


def test_parameters_of_a_stage_that_has_not_run_name_the_stage(tmp_path):
  with pytest.raises(ValueError, match=r"stage 'diffusion'.*--stages=diffusion"):
    checkpoint.load_params(tmp_path / 'diffusion')
