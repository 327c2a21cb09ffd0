"""Notebooks run from the first cell to the last, on the smallest experiment."""

import json
import pathlib
import shutil

import matplotlib
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_on_the_work_folder_of_the_command_line(
  path, finished, tmp_path, monkeypatch
):
  """Same config, same folder: the cells find every stage up to date."""
  matplotlib.use('Agg')
  work = tmp_path / 'work'
  shutil.copytree(finished, work)
  monkeypatch.chdir(ROOT)
  cells = json.loads(path.read_text())['cells']
  names = {}
  for cell in cells:
    if cell['cell_type'] == 'code':
      source = ''.join(cell['source'])
      source = source.replace("'configs/cardiac.py:tiny'", "'tests/micro.py'")
      source = source.replace("'runs/quickstart'", repr(str(work)))
      exec(compile(source, str(path), 'exec'), names)
  assert names['statement']['unit'] == 'patient'
  assert names['volumes'].shape[0] == names['config'].sample.num


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_without_outputs(path):
  """Outputs could show scans."""
  cells = json.loads(path.read_text())['cells']
  assert not any(cell.get('outputs') for cell in cells)
