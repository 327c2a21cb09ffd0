"""Notebooks run from the first cell to the last, on the smallest experiment."""

import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))
SPEC = importlib.util.spec_from_file_location(
  'badges', ROOT / 'notebooks' / 'badges.py'
)
badges = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(badges)
# What a cell says and what is said instead, so that it runs in seconds.
SMALLER = {
  '01_quickstart.ipynb': {
    "'cardiac:tiny'": 'MICRO',
    "'runs/quickstart'": 'WORK',
  },
  '02_privacy_budget.ipynb': {
    'STEPS = 200': 'STEPS = 20',
    '(0.5, 1, 2, 4, 8)': '(1, 8)',
    'NUM_POINTS = 9': 'NUM_POINTS = 2',
    'np.arange(1, 7)': 'np.arange(1, 3)',
  },
  '03_counterfactuals.ipynb': {
    "'brain:tiny'": 'MICRO',
    "'runs/counterfactuals'": 'WORK',
    "{'age': '+10'}": "{'LVEDV': '+20'}",
    "('ddim', 'ddpm', 'pix2pix_zero')": "('ddim', 'sdedit')",
    '(4,)': '(1,)',
  },
  '04_own_data.ipynb': {'NUM_PATIENTS = 12': 'NUM_PATIENTS = 10'},
  '05_share_and_sample.ipynb': {"'cardiac:tiny'": 'MICRO', "'runs/quickstart'": 'WORK'},
  '06_tpu.ipynb': {"'cardiac:tiny'": 'MICRO', "'runs/quickstart'": 'WORK'},
}


def run(name, finished, tmp_path, monkeypatch):
  """The names after the last cell; every stage is up to date in the work folder.

  Notebooks that train nothing pass None for the finished work folder.
  """
  matplotlib.use('Agg')
  work = tmp_path / 'work'
  if finished is not None:
    shutil.copytree(finished, work)
  # As Colab has it: no checkout around the notebook.
  monkeypatch.chdir(tmp_path)
  cells = json.loads((ROOT / 'notebooks' / name).read_text())['cells']
  names = {'WORK': str(work), 'MICRO': str(ROOT / 'tests' / 'micro.py')}
  source = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
  for text in SMALLER[name]:
    assert any(text in cell for cell in source), text
  for cell in source:
    for text, smaller in SMALLER[name].items():
      cell = cell.replace(text, smaller)
    exec(compile(cell, name, 'exec'), names)
  return names


def test_the_quickstart_runs_on_the_work_folder_of_the_command_line(
  finished, tmp_path, monkeypatch
):
  names = run('01_quickstart.ipynb', finished, tmp_path, monkeypatch)
  assert names['statement']['unit'] == 'patient'
  assert names['volumes'].shape[0] == names['config'].sample.num


def test_the_notebook_of_privacy_counts_runs_and_refuses_what_exceeds_the_budget(
  tmp_path, monkeypatch
):
  names = run('02_privacy_budget.ipynb', None, tmp_path, monkeypatch)
  assert 'would bring these patients to epsilon' in names['refusal']
  assert len(names['book'].own_releases()) == 3
  assert names['totals'][0] < names['totals'][1] < 2 * names['totals'][0]
  assert 0.99 * names['EPSILON'] < names['total'] <= names['EPSILON'] * (1 + 1e-9)
  weak, strong = names['bounds'][1, 'zero-out'], names['bounds'][8, 'zero-out']
  assert 0.5 < weak['accuracy'] < strong['accuracy'] < 1


def test_the_notebook_of_own_data_prepares_it_and_mends_what_it_broke(
  tmp_path, monkeypatch
):
  names = run('04_own_data.ipynb', None, tmp_path, monkeypatch)
  expected = ('public patients', 'max_bad_fraction', "'age'", 'preprocess.shape', 'mm')
  for text, message in zip(expected, names['messages'], strict=True):
    assert text in message
  assert len(names['public']) == len(names['named']['public']) == 4
  assert len(names['cohort']) == 1
  np.testing.assert_allclose(
    names['by_dicom'].array, names['by_nifti'].array, atol=0.51
  )


def test_the_notebook_of_counterfactuals_runs_and_keeps_what_its_mask_keeps(
  finished, tmp_path, monkeypatch
):
  names = run('03_counterfactuals.ipynb', finished, tmp_path, monkeypatch)
  assert names['cycles']['n'] == 2 and set(names['kept']) == {'ddim', 'sdedit'}
  everywhere = names['kept']['ddim']
  free = everywhere['counterfactual'] == everywhere['source']
  assert (names['change'] == 0).mean() > max(free.mean(), 0.2)
  assert len(list((tmp_path / 'work' / 'counterfactuals').glob('*_montage.png'))) == 2


def test_the_notebook_of_sharing_draws_and_edits_from_the_exported_model(
  finished, tmp_path, monkeypatch
):
  names = run('05_share_and_sample.ipynb', finished, tmp_path, monkeypatch)
  assert names['volumes'].shape == (4, *names['config'].data.preprocess.shape)
  assert names['edited'].shape == names['volumes'][0].shape
  assert 'NOT PRIVATE' in names['model'].about['warning']


def test_the_notebook_of_devices_splits_the_work_and_compiles_it_ahead(
  finished, tmp_path, monkeypatch
):
  names = run('06_tpu.ipynb', finished, tmp_path, monkeypatch)
  assert names['mesh'].size == 4 and len(names['refusals']) == 2
  batch, parameter = (len(np.unique(names['owners'](x))) for x in names['placed'])
  assert (batch, parameter) == (4, 2)
  assert 'all-reduce' in names['text']
  assert 0 < names['error'] < 0.1
  assert 0 < names['wide']['bfloat16'] < names['wide']['float32']


def test_every_notebook_is_run():
  assert {path.name for path in NOTEBOOKS} == set(SMALLER)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_begins_with_a_link_to_colab_its_time_and_the_installation(path):
  first, second = json.loads(path.read_text())['cells'][:2]
  about = ''.join(first['source'])
  told = 'run `python notebooks/badges.py`, which writes the links from setup.py'
  assert badges.badge(badges.repository(), path.name) in about.splitlines(), told
  assert re.search(
    r'(minutes?|hour)\b.*two .*CPU cores.*not measured', about, re.DOTALL
  )
  assert second['cell_type'] == 'code' and "'ldm-jax'" in ''.join(second['source'])


def test_badges_follow_from_the_address_in_setup(tmp_path, monkeypatch):
  copies = [pathlib.Path(shutil.copy(path, tmp_path)) for path in NOTEBOOKS]
  monkeypatch.setattr(badges, 'NOTEBOOKS', copies)
  badges.write('https://github.com/some-one/ldm.jax.git')
  colab = (
    'https://colab.research.google.com/github/some-one/ldm.jax/blob/main/notebooks'
  )
  for path in copies:
    assert f'({colab}/{path.name})' in path.read_text()
  badges.write(badges.repository())
  for path, copy in zip(NOTEBOOKS, copies, strict=True):
    assert copy.read_bytes() == path.read_bytes()
  with pytest.raises(ValueError, match='expected https://github'):
    badges.write('https://example.org/ldm_jax')


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_installs_an_uploaded_wheel_else_its_checkout_else_from_pypi(
  path, tmp_path, monkeypatch
):
  source = ''.join(json.loads(path.read_text())['cells'][1]['source'])
  asked = []
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  monkeypatch.setattr(subprocess, 'run', lambda command, check: asked.append(command))
  folder = tmp_path / 'notebooks'
  folder.mkdir()
  monkeypatch.chdir(folder)
  exec(source, {})
  (tmp_path / 'setup.py').touch()
  exec(source, {})
  (folder / 'ldm_jax-0.2.0-py3-none-any.whl').touch()
  exec(source, {})
  command = [sys.executable, '-m', 'pip', 'install', '-q']
  wheel = 'ldm_jax-0.2.0-py3-none-any.whl'
  assert asked == [[*command, package] for package in ('ldm-jax', '..', wheel)]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_without_outputs(path):
  """Outputs could show scans."""
  cells = json.loads(path.read_text())['cells']
  assert not any(cell.get('outputs') for cell in cells)
