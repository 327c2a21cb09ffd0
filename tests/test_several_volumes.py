"""A run with several volumes of each synthetic patient, to a stranger's hands."""

import json
import shutil

import numpy as np
import pytest

import ldm_jax
from ldm_jax import main
from ldm_jax.data.layouts import folder
from ldm_jax.workfolder import WorkFolder
from tests import micro

FLAGS = (
  '--config=tests/micro.py',
  '--stages=sample,evaluate,report,export',
  '--config.sample.within_patient.ESED=1|0',
  '--config.sample.sweep=()',
  "--config.evaluate.only=('within_patient',)",
  '--config.export.unprotected=true',
)


@pytest.fixture(scope='module')
def work(finished, tmp_path_factory):
  """Work folder of two patients with two phases each; read-only."""
  place = shutil.copytree(finished, tmp_path_factory.mktemp('several') / 'work')
  assert main.main([*FLAGS, f'--workdir={place}', '--debug']) == 0
  return place


def test_the_shared_samples_are_two_patients_at_two_phases(work):
  model = ldm_jax.load(work / 'shareable')
  cohort = folder.read(work / 'shareable' / 'samples', model.schema, visit='session_id')
  assert [record.patient[-1] for record in cohort.records] == list('0011')
  codes = np.stack([model.schema.encode(each.attributes) for each in cohort.records])
  phase = model.schema.names.index('ESED')
  assert codes[:, phase].tolist() == [1, 0, 1, 0]
  same = np.delete(codes, phase, 1)
  np.testing.assert_array_equal(same[::2], same[1::2])


def test_a_recipient_draws_the_same_patients(work):
  kept = WorkFolder(work).read_arrays('samples.npz')
  people, drawn = np.array(kept['requests'])[::2], kept['volumes'][..., 0]
  options = {'seed': 0, 'within_patient': {'ESED': '1|0'}}
  found = ldm_jax.load(work / 'shareable').sample(requests=people, **options)
  assert found.shape == (4, *micro.SHAPE)
  assert np.allclose(found, drawn, atol=1e-5)


def test_figures_of_real_patients_are_internal_and_stay(work):
  found = json.loads((work / 'metrics.json').read_text())['within_patient']
  assert found['likeness']['synthetic']['n'] == 2
  assert found['likeness']['real']['n'] == micro.PATIENTS['test']
  assert found['same']['myocardium']['real']['n'] == micro.PATIENTS['test']
  for part in (found['likeness'], found['same']['myocardium']):
    assert part['real']['internal'] and not part['synthetic'].get('internal')
  inside = (work / 'report' / 'index.html').read_text()
  shared = (work / 'shareable' / 'report' / 'public.html').read_text()
  for page in (inside, shared):
    assert 'Several volumes of a patient' in page and 'patient 2' in page
  assert 'SSIM, real' in inside and 'SSIM, real' not in shared
