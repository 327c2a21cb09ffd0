"""Laws of finding end-diastole and end-systole."""

import numpy as np
import pytest

from ldm_jax.data.layouts.shared import cine
from ldm_jax.data.readers import nifti


def beating(num_frames=12, es=4, depth=4, seed=0):
  """(f,d,h,w): a bright pool in a dark ring, smallest in frame `es`."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:48, :48] - 24.0
  radius = np.hypot(y, x)
  phase = np.arange(num_frames) - es
  phase = np.minimum(abs(phase), num_frames - abs(phase)) / (num_frames / 2)
  frames = np.full((num_frames, depth, 48, 48), 60.0)
  for t in range(num_frames):
    cavity = radius < 6 + 5 * phase[t]
    frames[t][:, radius < 15] = 20.0
    frames[t][:, cavity] = 200.0
  frames[:, :, 2:10, 2:40] = 220.0  # bright, large, and at rest
  return frames + rng.normal(0, 3, frames.shape)


@pytest.mark.parametrize('es', [3, 5, 9])
def test_the_smallest_pool_is_end_systole_whatever_rests_beside_it(es):
  frames = beating(es=es)
  assert cine.smallest_pool(frames) == es


def test_the_scale_of_each_slice_does_not_matter():
  frames = beating()
  scales = np.array([1, 0.1, 40, 3]).reshape(1, 4, 1, 1)
  np.testing.assert_allclose(
    cine.pool_curve(frames * scales + 7 * scales), cine.pool_curve(frames)
  )


@pytest.mark.parametrize('frames', [np.ones((5, 2, 8, 8)), np.random.rand(1, 2, 8, 8)])
def test_what_does_not_move_has_no_phases(frames):
  with pytest.raises(ValueError, match='without any motion'):
    cine.smallest_pool(frames)


def test_a_source_reads_the_phase_and_names_its_rule(tmp_path, save_nifti, save_series):
  frames = beating(num_frames=6, es=2, depth=3)
  voxels = frames.transpose(3, 2, 1, 0).astype(np.int16)
  affine = np.diag([1.0, 1.0, 8.0, 1.0])
  nifti = save_nifti(tmp_path / 'a.nii.gz', voxels, affine)
  dicom = save_series(tmp_path / 'a', voxels, affine)
  for path in (nifti, dicom):
    ed, es = (cine.PhaseSource(str(path), phase) for phase in cine.PHASES)
    assert (ed.rule, es.rule) == ('first_frame', 'smallest_pool')
    for source, frame in ((ed, 0), (es, 2)):
      scan, label = source.read()
      assert label is None
      np.testing.assert_array_equal(scan.source.restore(scan.array), voxels[..., frame])
    assert ed.fingerprint() != es.fingerprint()
  assert cine.read(dicom).times_ms == (0, 25, 50, 75, 100, 125)
  assert cine.read(nifti).clock == '' and cine.read(dicom).clock == 'TriggerTime'


def test_a_still_scan_has_no_phase_to_choose(tmp_path, save_nifti):
  path = save_nifti(tmp_path / 'a.nii')
  for phase in cine.PHASES:
    with pytest.raises(ValueError, match='1 frame; expected a cine'):
      cine.PhaseSource(str(path), phase).read()


def test_sunnybrook_cavities_are_smaller_at_the_phase_that_is_chosen(real_data):
  """Each patient's ED and ES stack as a cine of two frames: which is the smaller?"""
  right, seen = 0, 0
  for folder in sorted((real_data / 'scd').glob('SC-*')):
    paths = [folder / f'{folder.name}_{phase}.nii.gz' for phase in cine.PHASES]
    shapes = [nifti.read_header(path).shape for path in paths]
    if shapes[0] == shapes[1]:
      seen += 1
      frames = np.concatenate([cine.read(path).frames for path in paths])
      right += cine.smallest_pool(frames) == 1
  assert seen >= 10 and right >= 0.9 * seen, (right, seen)
