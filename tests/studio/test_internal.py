"""Laws of the studio on a work folder: the run's own model, marked internal."""

import shutil

import numpy as np
import pytest

from ldm_jax.studio import internal


def test_a_work_folder_draws_the_volumes_of_its_run_and_is_marked(finished, tmp_path):
  work = shutil.copytree(finished, tmp_path / 'work')
  model = internal.open_workdir(work)
  with np.load(work / 'store' / 'samples.npz') as kept:
    drawn, vectors = kept['volumes'][..., 0], kept['requests']
  assert np.allclose(model.sample(requests=vectors, seed=0), drawn, atol=1e-5)
  assert model.about['internal'] is True
  assert model.about['warning'].startswith('INTERNAL: ')
  assert not model.protected and 'NOT PRIVATE' in model.about['warning']


def test_a_folder_of_no_run_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'config\.json cannot be read'):
    internal.open_workdir(tmp_path)
