"""Laws of broken input: each file its verdict, in bounded memory and time."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ldm_jax import main
from ldm_jax.pipeline import cost_estimate
from tests.data import hostile, hostile_trees

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = {**hostile.NIFTI, **hostile_trees.TREES}
if hostile.reads_dicom():
  from tests.data import hostile_dicom

  CASES |= hostile_dicom.DICOM
VERDICTS = {name: entry[1] for name, entry in CASES.items()}


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
  """What one process of little memory made of all cases."""
  folder = tmp_path_factory.mktemp('hostile')
  (folder / 'cases').mkdir()
  command = [
    sys.executable,
    '-m',
    'tests.data.hostile',
    folder / 'cases',
    folder / 'found.json',
  ]
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  subprocess.run(command, check=True, env=environment, timeout=240, cwd=ROOT)
  return json.loads((folder / 'found.json').read_text())


@pytest.mark.parametrize('name', VERDICTS)
def test_a_broken_file_gets_its_verdict_and_an_odd_one_is_read(outcomes, name):
  found, words = outcomes['cases'][name], VERDICTS[name]
  if words == hostile.READ:
    assert found['verdict'] == hostile.READ
  else:
    assert words in found['verdict']
    assert not found['verdict'].startswith(('TRACEBACK', 'HANGS', 'other'))
    assert len(found['verdict']) < 1500
  assert found['seconds'] < hostile.SECONDS


def test_the_corpus_is_large_and_took_little_memory(outcomes):
  assert len(VERDICTS) >= 150
  assert outcomes['peak'] < 2**29


@pytest.fixture(scope='module')
def folder_of_all(tmp_path_factory):
  """All NIfTI cases as patients of one folder, each with an age."""
  root = tmp_path_factory.mktemp('patients') / 'scans'
  root.mkdir()
  for name, (write, _) in hostile.NIFTI.items():
    (root / name).mkdir()
    write(root / name)
  ages = ''.join(f'{name}\t{20 + n / 9}\n' for n, name in enumerate(hostile.NIFTI))
  (root / 'participants.tsv').write_text(f'participant_id\tage\n{ages}')
  return root


@pytest.fixture
def command(folder_of_all):
  """Arguments of the command line for that folder, as one public cohort."""

  def arguments(*more):
    config = f'{ROOT}/configs/folder.py:tiny,root={folder_of_all},'
    config += (
      'attributes=age:20:90,image={subject}/*,shape=8x8x8,spacing=1x1x1,split=demo'
    )
    alone = [f'--config.data.{key}=' for key in ('private.layout', 'test.layout')]
    work = f'--workdir={folder_of_all.parent / "work"}'
    return [f'--config={config}', work, '--config.data.public.part=', *alone, *more]

  return arguments


# These two stand for a file that the folder does not list: it becomes a note.
UNLISTED = {'half_of_a_pair', 'a_file_as_a_folder'}


def broken():
  listed = {name for name, (_, words) in hostile.NIFTI.items() if words != hostile.READ}
  return listed - UNLISTED


def test_prepare_names_the_fault_in_one_paragraph(command, capsys):
  assert main.main(command('--stages=prepare')) == 2
  error = capsys.readouterr().err
  (paragraph,) = (line for line in error.splitlines() if line.startswith('ldm-jax: '))
  assert f'{len(broken())} of the' in paragraph and len(paragraph) < 2000
  assert 'Traceback' not in error


def test_prepare_leaves_out_the_broken_files_when_allowed_and_no_other(command, capsys):
  flags = ('--stages=prepare', '--config.data.max_bad_fraction=0.9')
  assert main.main(command(*flags)) == 0
  said = capsys.readouterr().out
  left_out = [
    line.split('left out ')[1] for line in said.splitlines() if 'left' in line
  ]
  assert {text.split(':')[0] for text in left_out} == broken()


def test_doctor_lists_the_broken_files_and_goes_on(
  command, folder_of_all, capsys, monkeypatch
):
  def refuse(*args):
    raise ValueError('no such network')

  monkeypatch.setattr(cost_estimate, 'plan', refuse)
  assert main.main(command('--stages=doctor')) == 0
  assert 'refused: no such network' in capsys.readouterr().out
  path = folder_of_all.parent / 'work' / 'doctor' / 'public.json'
  found = json.loads(path.read_text())
  assert {text.split(':')[0] for text in found['unreadable']} == broken()
  assert found['counts']['inspected'] == len(hostile.NIFTI) - len(UNLISTED)
