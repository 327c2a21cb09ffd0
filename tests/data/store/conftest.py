"""Small cohorts of NIfTI files."""

import numpy as np
import pytest

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record


@pytest.fixture
def make_cohort(tmp_path, save_nifti):
  def make(num=3, name='public', label=True, first=0):
    records = []
    for patient in range(first, first + num):
      for phase in ('ED', 'ES'):
        stem = tmp_path / 'scans' / f'{patient}{phase}'
        seed = 2 * patient + (phase == 'ES')
        image = save_nifti(f'{stem}.nii.gz', seed=seed)
        labels = None
        if label:
          voxels = np.full((6, 5, 4), seed % 3, np.uint8)
          labels = str(save_nifti(f'{stem}_gt.nii.gz', voxels))
        age = 10 * patient if patient else None
        records.append(
          Record(
            f'{patient}_{phase}',
            str(patient),
            FileSource(str(image), labels),
            {'age': age},
            phase=phase,
          )
        )
    return Cohort(name, Schema((Attribute('age', low=0, high=100),)), tuple(records))

  return make
