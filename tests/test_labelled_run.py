"""A run with data.labels='joint': label maps from the store to a stranger's hands."""

import csv
import json
import math
import shutil

import nibabel as nib
import numpy as np
import pytest

import ldm_jax
from ldm_jax import main
from ldm_jax.config.parsing import override
from ldm_jax.data.layouts import folder
from ldm_jax.pipeline import fit_autoencoder, measure_utility
from ldm_jax.pipeline.run import Run
from ldm_jax.training import model_record
from ldm_jax.workfolder import WorkFolder
from tests import micro

FLAGS = ('--config=tests/micro.py', '--config.data.labels=joint')
MASK = (
  "--config.diffusion.conditioner.by=('embedding','channels','mask')",
  '--config.sample.requests=public',
)
UTILITY = (
  '--config.evaluate.utility.use=true',
  '--config.evaluate.utility.steps=2',
  '--config.evaluate.utility.times=(1.0,0.5)',
  "--config.evaluate.utility.attributes=('LVEDV',)",
  "--config.evaluate.groups.by=('SEX','AGE')",
  '--config.evaluate.groups.least=1',
)


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
  """Work folder of a whole run with label maps, exported; read-only."""
  work = tmp_path_factory.mktemp('labelled') / 'work'
  stages = 'prepare,autoencoder,encode,diffusion,adapt,sample,counterfactual,evaluate'
  flags = [
    *FLAGS,
    *MASK,
    *UTILITY,
    f'--workdir={work}',
    f'--stages={stages},report,export',
  ]
  flags += ['--config.export.unprotected=true', '--config.counterfactual.num=1']
  assert main.main([*flags, '--config.sample.sweep=()', '--debug']) == 0
  return work


def test_every_sample_has_a_label_map_on_its_grid(labelled):
  with open(labelled / 'samples' / 'samples.csv', newline='') as file:
    ids = [row['id'] for row in csv.DictReader(file)]
  with np.load(labelled / 'store' / 'samples.npz') as kept:
    volumes, maps = kept['volumes'], kept['labels']
  assert volumes.shape == (4, *micro.SHAPE, 1) and maps.shape == (4, *micro.SHAPE)
  assert volumes.min() >= 0 and volumes.max() <= 1
  for name, labels in zip(ids, maps, strict=True):
    scan = nib.load(labelled / 'samples' / f'{name}.nii.gz')
    found = nib.load(labelled / 'samples' / f'{name}_seg.nii.gz')
    assert found.get_data_dtype() == np.uint8 and found.shape == scan.shape
    assert np.array_equal(found.affine, scan.affine)
    assert set(np.unique(found.dataobj)) <= {0, 1, 2, 3}
    assert np.asarray(found.dataobj).sum() == labels.sum()
  names = json.loads((labelled / 'samples' / 'labels.json').read_text())
  assert names[0] == {'value': 0, 'name': 'background'} and len(names) == 4


def test_figures_of_label_maps_and_of_utility_say_what_they_read(labelled):
  metrics = json.loads((labelled / 'metrics.json').read_text())
  drawn, real = (metrics['label_maps'][key] for key in ('synthetic', 'real'))
  assert set(drawn) == set(real) == {'single_component', 'agreement'}
  # Maps of an untrained model may lack a class; those of patients do not.
  figure = real['single_component']['label 1']
  assert figure['n'] == micro.PATIENTS['test'] and 0 <= figure['value'] <= 1
  assert figure['reads'] == ['test'] and figure['internal']
  assert drawn['single_component']['label 1']['reads'] == []
  found = metrics['utility']
  arms = {n for n, part in found.items() if isinstance(part, dict) and 'dice' in part}
  assert arms == {
    *('real', 'public', 'synthetic', 'both', 'synthetic_0.5x', 'both_0.5x')
  }
  assert found['labels_from'].startswith('the model')
  reads = {'real': ['test', 'private'], 'synthetic': ['test'], 'both_0.5x': None}
  reads['both_0.5x'] = reads['real']
  for name, expected in reads.items():
    for figure in (found[name]['dice'], found[name]['hd95_mm'], found[name]['mae']):
      figure = figure.get('LVEDV', figure)
      assert figure['reads'] == expected and figure['internal']
      assert figure['low'] <= figure['high'] and figure['value'] >= 0
      assert figure['n'] == micro.PATIENTS['test'] and figure['seeds'] == 2
  scans = len(json.loads((labelled / 'store' / 'private.json').read_text())['entries'])
  assert found['synthetic_0.5x']['scans'] == f'{math.ceil(scans / 2)}'
  assert found['both']['scans'] == f'{scans} + {scans}'
  assert found['minus_real']['public']['dice']['internal']
  for group in found['groups']['AGE'].values():
    assert set(group) == arms and group['synthetic']['reads'] == ['test']
  assert set(metrics['groups']['AGE']) == set(found['groups']['AGE'])
  asked = metrics['mask_control']['label 1']
  assert asked['reads'] == [] and 0 <= asked['value'] <= 1
  page = (labelled / 'report' / 'index.html').read_text()
  assert 'Dice of the requested map' in page
  assert 'By group of patients' in page
  assert 'With their label maps' in page and 'Dice / real' in page


def test_a_stranger_gets_pairs_from_the_shared_model(labelled, tmp_path):
  shared = labelled / 'shareable'
  model = ldm_jax.load(labelled / 'shareable.zip')
  assert model.label_names == {
    **{0: 'background', 1: 'label 1'},
    **{2: 'label 2', 3: 'label 3'},
  }
  with np.load(labelled / 'store' / 'samples.npz') as kept:
    drawn, maps, vectors = kept['volumes'], kept['labels'], kept['requests']
    masks = kept['masks']
  drawing = {'requests': vectors, 'seed': 0, 'masks': masks}
  volumes, labels = model.sample(**drawing, labels=True)
  assert labels.dtype == np.uint8 and labels.shape == volumes.shape
  assert np.allclose(volumes, drawn[..., 0], atol=1e-5)
  assert (labels == maps).mean() > 0.999
  assert np.array_equal(model.sample(**drawing), volumes)
  without = model.sample(requests=vectors, seed=0)
  assert not np.array_equal(without, volumes), 'the map steers the sample'
  with pytest.raises(ValueError, match=r'holds the labels \[9\]'):
    model.sample(masks=np.full(micro.SHAPE, 9))
  # What the model learned with labels also encodes scans without.
  assert model.decode(model.encode(volumes)).shape == volumes.shape
  cohort = folder.read(
    shared / 'samples', model.schema, label='{participant_id}_seg.nii.gz'
  )
  scan, found = cohort.records[0].source.read()
  assert np.array_equal(found.array, maps[0]) and scan.array.shape == micro.SHAPE
  text = (shared / 'report' / 'public.html').read_text()
  assert 'With their label maps' in text and 'Dice / real' not in text
  settings = json.loads((shared / 'config.json').read_text())['settings']
  assert settings['data'] == {'labels': 'joint'}


def test_labels_change_the_model_and_without_them_nothing_is_made_again(
  finished, labelled, tmp_path, capsys
):
  work = shutil.copytree(finished, tmp_path / 'work')
  flags = [FLAGS[0], f'--workdir={work}']
  before = (work / 'checkpoints' / 'autoencoder' / 'done.json').read_text()
  assert main.main([*flags, '--stages=prepare,autoencoder,encode']) == 0
  assert (work / 'checkpoints' / 'autoencoder' / 'done.json').read_text() == before
  capsys.readouterr()
  assert main.main([*flags, FLAGS[1], '--stages=sample']) == 2
  assert 'config.data.labels is' in ' '.join(capsys.readouterr().err.split())
  config = override(micro.get_config(), {'data.labels': 'joint'})
  kept = model_record.settings(config, 'autoencoder')
  assert kept['data.labels'] == 'joint' and kept['evaluate.labels'] == [0, 1, 2, 3]
  run = Run(config, WorkFolder(labelled))
  fit_autoencoder.check(run)
  model = ldm_jax.load(labelled / 'shareable.zip')
  assert model.label_names
  with pytest.raises(ValueError, match='expected some of the continuous'):
    override(config, {'evaluate.utility.use': True})
    override(config, {'evaluate.utility.attributes': ('SEX',)})
    measure_utility.check(run)


def test_private_latents_of_labels_depend_on_one_patient_alone(labelled):
  config = override(micro.get_config(), {'data.labels': 'joint'})
  run = Run(config, WorkFolder(labelled))
  split = run.splits['private']
  x = run.inputs(split, np.arange(len(split)))
  z = np.asarray(run.autoencoder.encode(x[:2]))
  x[1:, ..., 1:] = 0
  changed = np.asarray(run.autoencoder.encode(x[:2]))
  assert np.allclose(z[0], changed[0], atol=1e-5)
  assert np.abs(z[1] - changed[1]).max() > 1e-3, 'labels are part of the latent'
