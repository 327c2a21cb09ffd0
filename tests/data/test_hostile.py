"""Laws of broken input: each file its verdict, in bounded memory and time."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.inspection import findings
from ldm_jax.data.layouts import folder
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.store import store
from tests.data import hostile, hostile_trees

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = {**hostile.NIFTI, **hostile_trees.TREES}
if hostile.reads_dicom():
  from tests.data import hostile_dicom

  CASES |= hostile_dicom.DICOM
SPEC = Spec((8, 8, 8))
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


# Without the one whose 2 GiB of nothing take seconds to hash.
LISTED = {name: case for name, case in hostile.NIFTI.items() if name != 'sparse_file'}


@pytest.fixture(scope='module')
def cohort(tmp_path_factory):
  """NIfTI cases as patients of one folder, each with an age."""
  root = tmp_path_factory.mktemp('patients')
  for name, (write, _) in LISTED.items():
    (root / name).mkdir()
    write(root / name)
  ages = ''.join(f'{name}\t{20 + n / 9}\n' for n, name in enumerate(LISTED))
  (root / 'participants.tsv').write_text(f'participant_id\tage\n{ages}')
  age = Schema((Attribute('age', low=20, high=90),))
  return folder.read(str(root), age, image='{subject}/*')


# These two stand for a file that the folder does not list: it becomes a note.
UNLISTED = {'half_of_a_pair', 'a_file_as_a_folder'}


def broken():
  listed = {name for name, (_, words) in LISTED.items() if words != hostile.READ}
  return listed - UNLISTED


def test_prepare_names_the_faults_in_one_paragraph(tmp_path, cohort):
  with pytest.raises(ValueError) as error:
    store.prepare(tmp_path, cohort, SPEC)
  paragraph = str(error.value)
  assert f'{len(broken())} of the' in paragraph and len(paragraph) < 2000
  assert '\n' not in paragraph


def test_prepare_leaves_out_the_broken_files_when_allowed_and_no_other(
  tmp_path, cohort
):
  index = store.prepare(tmp_path, cohort, SPEC, max_bad_fraction=0.9)
  assert {problem['id'] for problem in index['problems']} == broken()


def test_an_inspection_lists_the_broken_files_and_goes_on(cohort):
  found = findings.inspect(cohort).findings
  assert {text.split(':')[0] for text in found['unreadable']} == broken()
  assert found['counts']['inspected'] == len(LISTED) - len(UNLISTED)
