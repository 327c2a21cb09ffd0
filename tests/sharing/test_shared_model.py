"""Laws of a shared model: it draws and edits as the run did, without the run."""

import csv

import nibabel as nib
import numpy as np
import pytest

import ldm_jax
from ldm_jax.data.readers import volume
from ldm_jax.data.readers.grid import centred_affine
from tests import micro


@pytest.fixture(scope='module')
def model(exported):
  return ldm_jax.load(exported / 'shareable.zip')


def test_the_seed_of_the_run_draws_the_volumes_of_the_run(model, exported):
  with open(exported / 'samples' / 'samples.csv', newline='') as file:
    rows = [
      {name: row[name] for name in model.schema.names} for row in csv.DictReader(file)
    ]
  with np.load(exported / 'store' / 'samples.npz') as kept:
    drawn, vectors = kept['volumes'][..., 0], kept['requests']
  made = model.sample(requests=vectors, seed=0)
  assert made.shape == (4, *micro.SHAPE) and made.dtype == np.float32
  assert np.allclose(made, drawn, atol=1e-5)
  # The table has four digits of each value.
  assert np.allclose(model.sample(requests=rows, rest='unknown'), drawn, atol=1e-2)


def test_what_is_not_named_is_as_in_one_of_the_samples(model, exported):
  with np.load(exported / 'store' / 'samples.npz') as kept:
    theirs = kept['requests']
  ours = model.requests(6, seed=1)
  far = [np.nanmax(np.abs(row - theirs), axis=1).min() for row in ours]
  assert max(far) < 1e-2, 'the table has four digits of each value'
  assert np.array_equal(np.isnan(ours).any(0), np.isnan(theirs).any(0))


def test_equal_seeds_draw_equal_volumes_one_by_one_or_together(model):
  four = model.sample(4, seed=3, AGE=60, SEX='F', rest='unknown')
  assert np.array_equal(four, model.sample(4, seed=3, AGE=60, SEX='F', rest='unknown'))
  asked = model.requests(4, seed=3, AGE=60, SEX='F', rest='unknown')
  assert asked[0, model.schema.names.index('SEX')] == 0
  parts = np.concatenate(list(model.draws(asked, seed=3, batch_size=3)))
  assert np.allclose(parts, four, atol=1e-5)
  assert not np.allclose(four, model.sample(requests=asked, seed=4), atol=1e-3)
  assert four.min() >= 0 and four.max() <= 1


@pytest.mark.parametrize(
  ('asked', 'says'),
  [
    ({'AGE': 900}, r'AGE \(18 to 95 years\)'),
    ({'HEIGHT': 1}, "no attribute 'HEIGHT'"),
    ({'steps': 21}, 'sample.steps is 21, but must be from 1 to 20'),
    ({'solver': 'magic'}, 'sample.solver'),
    ({'requests': np.zeros((1, 3))}, 'Expected encoded requests'),
  ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_drawn(model, asked, says):
  with pytest.raises(ValueError, match=says):
    model.sample(1, **asked)


def test_latents_are_those_of_the_networks_and_decode_to_volumes(model):
  x = np.random.default_rng(0).random((2, *micro.SHAPE)).astype(np.float32)
  z = model.encode(x)
  assert z.shape == (2, *model.system.latent_shape)
  assert model.decode(z).shape == x.shape
  assert np.allclose(model.encode(x[0]), z[:1], atol=1e-5)
  for wrong in (x[:, 1:], x[0, 0]):
    with pytest.raises(ValueError, match='Expected volumes'):
      model.encode(wrong)
  with pytest.raises(ValueError, match='Expected latents'):
    model.decode(z[:, 1:])


def test_an_edit_changes_a_volume_and_no_change_does_not(model, tmp_path):
  x = model.sample(1, seed=1, rest='unknown')[0]
  changed = model.edit(x, own={'AGE': 50}, AGE='+30')
  same = model.edit(x, own={'AGE': 50}, AGE='+0')
  assert changed.shape == x.shape
  assert np.abs(same - x).max() < np.abs(changed - x).max() + 1e-3
  with pytest.raises(ValueError, match=r'own=\{\.\.\.\}'):
    model.edit(x, AGE='+10')
  with pytest.raises(ValueError, match='Name what is to change'):
    model.edit(x)
  with pytest.raises(ValueError, match='outside its range'):
    model.edit(x, own={'AGE': 90}, AGE='+10')


def test_a_file_is_edited_on_its_own_grid_and_says_so(model, tmp_path):
  shape, spacing = (6, 20, 18), (16.0, 11.0, 11.0)
  array = 100 * np.random.default_rng(0).random(shape).astype(np.float32)
  source, target = tmp_path / 'scan.nii.gz', tmp_path / 'edited.nii.gz'
  volume.write(source, array, centred_affine(shape, spacing))
  model.edit_file(source, target, own={'AGE': 50}, AGE='+10')
  before, after = nib.load(source), nib.load(target)
  assert before.shape == after.shape and np.array_equal(before.affine, after.affine)
  assert after.header['descrip'].item().startswith(b'SYNTHETIC edit of a scan')
  assert model.edit(source, own={'AGE': 50}, AGE='+10').shape == shape


def test_the_model_says_what_it_guarantees(model):
  assert not model.protected and 'NOT PRIVATE' in model.about['warning']
  assert model.privacy['demonstration_only'] is True
  assert model.privacy['num_patients'] == micro.PATIENTS['private']
  assert [a.column for a in model.schema] == [''] * len(model.schema)


def test_volumes_of_a_patient_are_drawn_from_one_noise_where_this_is_asked_for(model):
  options = {'seed': 3, 'rest': 'unknown', 'AGE': 60}
  four = model.sample(4, within_patient={'esed': '1|0'}, **options)
  alone = model.sample(2, ESED=1, **options)

  # Patient 0 has the noise of request 0, and patient 1 that of request 1; what
  # the autoencoder leaves out is a volume's own.
  def apart(a, b):
    return float(np.abs(a - b).mean())

  assert four.shape == (4, *micro.SHAPE)
  assert np.allclose(four[0], alone[0], atol=1e-5)
  assert apart(four[2], alone[1]) < 0.8 * apart(four[2], alone[0])
  assert apart(four[0], four[1]) < 0.8 * apart(four[0], four[3])
  assert len(model.sample(within_patient={'ESED': '1|0'}, rest='unknown')) == 2
  rows = [{'AGE': 30}, {'AGE': 60}]
  assert len(model.sample(requests=rows, within_patient={'ESED': '1|0'})) == 4
  with pytest.raises(ValueError, match='two or more'):
    model.sample(4, within_patient={'ESED': '1'})
