"""Laws of the grid that the doctor proposes: ready to run, from public scans alone."""

import contextlib
import io
import pathlib
import re
import shlex
import types

import nibabel as nib
import numpy as np
import pytest

from ldm_jax import main
from ldm_jax.config import checks, parsing
from ldm_jax.data.cohorts.attributes import Attribute, Schema
from ldm_jax.data.cohorts.cohort import Cohort, Record
from ldm_jax.data.inspection import grid_fit
from ldm_jax.data.preprocessing import preprocess
from ldm_jax.data.store import store
from ldm_jax.pipeline import cost_estimate, grid_proposal
from tests import micro

SCHEMA = Schema((Attribute('age', low=20, high=90),))
ROOT = pathlib.Path(__file__).resolve().parents[2]


def folder(root, shape, names, rows):
  root.mkdir()
  for number, name in enumerate(names):
    voxels = np.random.default_rng(number).random(shape).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / f'{name}.nii.gz')
  lines = ['participant_id\tage', *(f'{row}\t{30 + n}' for n, row in enumerate(rows))]
  (root / 'participants.tsv').write_text('\n'.join(lines) + '\n')
  return root


def plan(config, *_):
  """In place of `cost_estimate.plan`, which traces networks and is tested elsewhere."""
  stages = [
    {
      'stage': name,
      'parameters': 10,
      'memory_bytes': 4 * 5 * 10 + 100 * config[name].batch_size,
      'seconds': 1.0,
      'note': '',
    }
    for name in grid_proposal.BATCHES
  ]
  return {'stages': stages, 'noise': [], 'faults': []}


@pytest.fixture(scope='module')
def examined(tmp_path_factory):
  """(work folder, output, flags) of doctor on scans half of whose ids do not match."""
  place = tmp_path_factory.mktemp('gridding')
  names = ['a', 'b', 'c', 'd', '007', '008', '009', '010']
  rows = [*names[:4], 's7', 's8', 's9', 's10']
  public = folder(place / 'public', (20, 26, 18), names, rows)
  argument = (
    f'tiny,root={public},split=demo,split_seed=3,attributes=age:20:90,spacing=4x4x4'
  )
  words = [
    f'--config={ROOT}/configs/folder.py:{argument}',
    f'--workdir={place / "work"}',
    '--config.data.public.part=',
    '--config.data.private.layout=',
    '--config.data.test.layout=',
    '--config.autoencoder.batch_size=64',
  ]
  printed = io.StringIO()
  with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
    patch.setattr(cost_estimate, 'plan', plan)
    assert main.main([*words, '--stages=doctor']) == 0
  return place / 'work', printed.getvalue(), words


def test_the_headlines_come_first_with_numbers_and_examples(examined):
  lines = examined[1].splitlines()
  assert all(line.startswith('WARNING public: ') for line in lines[:2])
  for words in (
    '4 of 8 patients',
    'such as s10, s7, s8',
    'such as 007, 008, 009',
  ):
    assert words in lines[0]
  for words in ('4 of 4 scans', '18 x 26 x 20 voxels of 1 x 1 x 1 mm', '32 x 32 x 32'):
    assert words in lines[1]


def test_the_page_tells_them_and_never_no_findings(examined):
  page = (examined[0] / 'report' / 'doctor.html').read_text()
  sections = dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.S))
  assert sections['summary'].index('4 of 8 patients') < sections['summary'].index(
    'card'
  )
  assert 'no findings' not in page and 'Nothing odd was found' not in page
  assert sections['grid'].count('<img') == 3 and '<pre>ldm-jax' in sections['grid']


def test_the_ready_command_runs_and_leaves_most_of_every_scan(examined):
  work, output, _ = examined
  command = output[output.index('ldm-jax \\') : output.index('Examination:')]
  program, *words = shlex.split(command.replace('\\\n', ''))  # as a shell does
  assert program == 'ldm-jax'
  assert not [word for word in words if '32x32x32' in word or 'stages' in word]
  assert sum('autoencoder.batch_size' in word for word in words) == 1
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    assert main.main([*words, '--stages=prepare']) == 0
  assert '4 of 8 patients' in printed.getvalue()
  assert 'leaves few voxels' not in printed.getvalue()
  split = store.open_split(work / 'store', 'public')
  spec = preprocess.Spec.from_config(split.spec)
  for geometry in grid_fit.of_split(split):
    assert grid_fit.inside(spec, geometry) >= 0.95
    assert np.prod(grid_fit.kept(spec, geometry)) >= 0.9 * np.prod(geometry.shape)


def test_prepare_tells_when_few_voxels_are_left(examined, tmp_path):
  words = [*examined[2], f'--workdir={tmp_path}', '--stages=prepare']  # the last counts
  words.append('--config.data.preprocess.least_filled=0')
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    assert main.main(words) == 0
  assert 'prepare: WARNING preprocessing leaves few voxels of 4 of 4' in (
    printed.getvalue()
  )


def scan(side):
  return grid_fit.Geometry((side,) * 3, (1.0,) * 3, (float(side),) * 3, 0.4)


def cohort(name, size):
  records = tuple(Record(f'{name}{n}', f'{name}{n}', None) for n in range(size))
  return Cohort(name, SCHEMA, records)


@pytest.fixture
def suggest(monkeypatch):
  """(cohort -> sides of its scans, cohort -> patients) -> what is proposed."""

  monkeypatch.setattr(cost_estimate, 'plan', plan)

  def suggested(sides, sizes=None):
    config = micro.get_config()
    looks = {
      name: types.SimpleNamespace(geometries=[scan(side) for side in found])
      for name, found in sides.items()
    }
    sizes = sizes or {name: 6 for name in sides}
    cohorts = {name: cohort(name, size) for name, size in sizes.items()}
    spec = preprocess.Spec((8, 16, 16), (4, 4, 4))
    planned = plan(config)
    return grid_proposal.suggest(config, looks, cohorts, spec, 1e9, planned)

  return suggested


def test_shape_and_spacing_do_not_depend_on_private_scans(suggest):
  found = [suggest({'public': [30, 33], 'private': [side]}) for side in (8, 200)]
  assert found[0] == found[1] and found[0]['overrides']['data.preprocess.shape']
  assert suggest({'private': [30]}) is None


def test_batches_fit_the_patients_the_memory_and_the_devices(suggest, monkeypatch):
  sides, sizes = {'public': [30] * 6, 'private': []}, {'public': 3, 'private': 2}
  overrides = suggest(sides, sizes)['overrides']
  assert overrides['autoencoder.batch_size'] == 2, 'of 4, three scans'
  assert overrides['adapt.privacy.batch_size'] == 1, 'of 3, two patients'
  monkeypatch.setattr(grid_proposal, 'machine_memory', lambda: 0)
  least = suggest(sides, sizes)['overrides']
  assert least['autoencoder.batch_size'] == least['diffusion.batch_size'] == 1
  planned = parsing.override(micro.get_config(), least)
  assert checks.check(planned) is planned


def test_a_flag_of_the_command_is_replaced_not_repeated():
  words = ('--config=a.py:x;y', '--config.a.b=1', '--config.a.bc=2')
  found = shlex.split(
    grid_proposal.command(words, {'a.b': (1, None)}).replace('\\\n', ' ')
  )
  assert found == ['ldm-jax', words[0], words[2], '--config.a.b=(1,None)']
  assert grid_proposal.command((), {'a': 1}) == '--config.a=1', 'of a notebook'
