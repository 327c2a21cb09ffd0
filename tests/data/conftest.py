"""Small NIfTI files and trees shaped like the real data sets."""

import os
import pathlib

import nibabel as nib
import numpy as np
import pytest

REAL_DATA = pathlib.Path(
  os.environ.get(
    'LDM_JAX_REAL_DATA', pathlib.Path(__file__).parents[3] / 'shared' / 'data'
  )
)


@pytest.fixture
def real_data():
  """Folder of the real scans; skips where there is none."""
  if not REAL_DATA.is_dir():
    pytest.skip(f'no real scans at {REAL_DATA}; set LDM_JAX_REAL_DATA')
  return REAL_DATA


@pytest.fixture
def save_nifti():
  """Writes (x,y,z[,t]) voxels and an affine as NIfTI; random voxels by default."""

  def save(path, voxels=None, affine=None, shape=(6, 5, 4), seed=0):
    if voxels is None:
      voxels = np.random.default_rng(seed).integers(0, 200, shape).astype(np.int16)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path

  return save
