"""Laws of the written samples: a volume and a row a request, sweeps on one noise."""

import csv

import jax
import nibabel as nib
import numpy as np

from ldm_jax.config.defaults import defaults
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.synthesis import write_samples
from ldm_jax.workfolder import WorkFolder

SCHEMA = Schema(
  (
    Attribute('age', low=20, high=100),
    Attribute('sex', 'categorical', categories=('F', 'M')),
  )
)
AFFINE = np.diag([1.5, 1.5, 8.0, 1.0])


def test_every_request_has_a_volume_on_the_grid_and_a_row(world, system_of, tmp_path):
  config, work = defaults(), WorkFolder(tmp_path)
  section = config.sample
  section.num, section.steps, section.batch_size, section.sweep = 3, 2, 4, ('age',)
  system = system_of(SCHEMA, w=world.params['w'])
  key = jax.random.key(3)
  done = write_samples.write_samples(config, work, system, None, AFFINE, key)
  origin = 'uniform: uniform within the ranges of the schema; values of nobody'
  assert done == {'volumes': 3, 'model': 'untrained', 'requests': origin}
  stored = work.read_arrays(write_samples.SAMPLES)
  with open(tmp_path / 'samples' / 'samples.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == len(stored['volumes']) == 3
  for row, x, vector in zip(rows, stored['volumes'], stored['requests'], strict=True):
    image = nib.load(tmp_path / 'samples' / f'{row["id"]}.nii.gz')
    # A file's axes run the other way round.
    np.testing.assert_allclose(image.affine[:, [2, 1, 0, 3]], AFFINE)
    assert image.shape == x.shape[2::-1]
    asked = SCHEMA.decode(vector)
    assert float(row['age']) == round(asked['age'], 4) and row['sex'] == asked['sex']
    assert row['model'] == 'untrained' and row['seed'] == str(config.seed)
  assert work.read_arrays(write_samples.SWEEPS)['age_volumes'].shape == (5, 2, 8, 8)


def test_a_sweep_varies_one_attribute_with_the_same_noise(system_of):
  asked = []

  def draw(vectors, request_ids):
    asked.append((vectors, request_ids))
    return np.zeros((len(vectors), 2, 8, 8, 1))

  base = SCHEMA.encode({'age': 30, 'sex': 'M'})
  found = write_samples.attribute_sweeps(draw, system_of(SCHEMA), ['age', 'x'], base)
  assert found['names'].tolist() == ['age'], 'no attribute of the schema is called x'
  np.testing.assert_allclose(found['age_values'], [32, 46, 60, 74, 88], atol=1e-4)
  ((vectors, request_ids),) = asked
  assert (vectors[:, 1] == base[1]).all() and len(set(request_ids)) == 1


def test_volumes_of_a_patient_have_its_id_its_attributes_and_its_noise(
  world, system_of, tmp_path
):
  config, work = defaults(), WorkFolder(tmp_path)
  section = config.sample
  section.num, section.steps, section.batch_size = 4, 2, 3
  section.solver, section.eta = 'ddpm', 1.0
  section.within_patient.sex = 'M|F'
  system = system_of(SCHEMA, w=0 * world.params['w'])  # deaf to what is asked for
  key = jax.random.key(3)
  done = write_samples.write_samples(config, work, system, None, AFFINE, key)
  assert done['requests'].endswith('within a patient sex = M|F')
  stored = work.read_arrays(write_samples.SAMPLES)
  assert stored['patients'].tolist() == [0, 0, 1, 1]
  assert stored['within_patient'].tolist() == ['sex']
  np.testing.assert_array_equal(stored['volumes'][::2], stored['volumes'][1::2])
  assert np.abs(stored['volumes'][0] - stored['volumes'][2]).max() > 1e-3
  with open(tmp_path / 'samples' / 'samples.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['patient'] for row in rows[::2]] == ['synthetic_00000', 'synthetic_00001']
  assert [row['id'] for row in rows[:2]] == ['synthetic_00000_1', 'synthetic_00000_2']
  for first, second in zip(rows[::2], rows[1::2], strict=True):
    assert (first['sex'], second['sex']) == ('M', 'F')
    same = {key for key in first if first[key] == second[key]}
    assert set(first) - same == {'id', 'sex'}
  for row in rows:
    assert (tmp_path / 'samples' / f'{row["id"]}.nii.gz').is_file()
