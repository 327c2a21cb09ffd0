"""Notebooks run from the first cell to the last, on the smallest experiment."""

import json
import pathlib
import shutil

import matplotlib
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))
# What a cell says and what is said instead, so that it runs in seconds.
SMALLER = {
  '01_quickstart.ipynb': {
    "'cardiac:tiny'": 'MICRO',
    "'runs/quickstart'": 'WORK',
  },
  '03_counterfactuals.ipynb': {
    "'brain:tiny'": 'MICRO',
    "'runs/counterfactuals'": 'WORK',
    "{'age': '+10'}": "{'LVEDV': '+20'}",
    "('ddim', 'ddpm', 'pix2pix_zero')": "('ddim', 'sdedit')",
    '(4,)': '(1,)',
  },
  '05_share_and_sample.ipynb': {"'cardiac:tiny'": 'MICRO', "'runs/quickstart'": 'WORK'},
}


def run(name, finished, tmp_path, monkeypatch):
  """The names after the last cell; every stage is up to date in the work folder."""
  matplotlib.use('Agg')
  work = tmp_path / 'work'
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


def test_every_notebook_is_run():
  assert {path.name for path in NOTEBOOKS} == set(SMALLER)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_without_outputs(path):
  """Outputs could show scans."""
  cells = json.loads(path.read_text())['cells']
  assert not any(cell.get('outputs') for cell in cells)
