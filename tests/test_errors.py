"""What goes wrong for a user ends in one paragraph and leaves the work as it was.

Every case runs the command line in this process. A stage that trains fails the test:
what can be known from the files and the config must be said before an hour is spent.
"""

import os
import pathlib
import subprocess

import nibabel as nib
import numpy as np
import pytest

from ldm_jax import main, stages

MICRO = str(pathlib.Path(__file__).with_name('micro.py'))
FOLDER = 'configs/folder.py'
NUM_PATIENTS = 12
TRAINING = ('autoencoder', 'encode', 'diffusion', 'adapt', 'sample')


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
  """Stages that train are not to be reached."""

  def reached(config, workdir):
    raise AssertionError('a stage that trains was reached')

  for name in TRAINING:
    monkeypatch.setattr(stages, name, reached)


@pytest.fixture
def scans(tmp_path):
  """A sound folder: 12 patients, one random volume each, age and sex."""
  return write_scans(tmp_path / 'scans')


def write_scans(root, first=0):
  root.mkdir()
  lines = ['participant_id\tage\tsex']
  for number in range(first, first + NUM_PATIENTS):
    voxels = np.random.default_rng(number).integers(1, 200, (8, 8, 8)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / f'P{number:02d}.nii.gz')
    lines.append(f'P{number:02d}\t{30 + number}\t{"FM"[number % 2]}')
  (root / 'participants.tsv').write_text('\n'.join(lines) + '\n')
  return root


def edit(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))


def of_folder(root, options=''):
  config = pathlib.Path(__file__).resolve().parent.parent / FOLDER
  arguments = f'tiny,root={root},attributes=age:20:90;sex:F|M,shape=8x8x8'
  return f'{config}:{arguments},spacing=1x1x1,split=demo{options}'


@pytest.fixture
def fails(tmp_path, capsys):
  """Runs the command line; returns its one paragraph after the checks of all cases.

  A paragraph about private patients ends with the notes in the store that it refers to.
  """

  def run(config, *flags, status=2, workdir=None):
    workdir = workdir or tmp_path / 'work'
    found = main.main([f'--config={config}', f'--workdir={workdir}', *flags])
    error = capsys.readouterr().err
    assert found == status, error
    assert 'Traceback' not in error
    spoken = [line for line in error.splitlines() if line.startswith('ldm-jax: ')]
    assert len(spoken) == 1, error
    assert error.endswith(f'{spoken[0]}\n'), 'the paragraph is not the last word'
    assert len(spoken[0]) < 2000
    notes = pathlib.Path(workdir).glob('store/notes-*.txt')
    told = [path.read_text() for path in notes if str(path) in spoken[0]]
    return '\n'.join([spoken[0], *told])

  return run


def says(paragraph, *words):
  missing = [word for word in words if word not in paragraph]
  assert not missing, f'{missing} not in {paragraph!r}'


def files(root):
  """Path -> time of change of all files under a folder."""
  return {path: path.stat().st_mtime_ns for path in root.rglob('*') if path.is_file()}


# The command line and the config


def test_a_misspelt_key_is_refused_with_the_nearest_ones(fails):
  paragraph = fails(MICRO, '--config.adapt.privacy.epsilonn=3')
  says(paragraph, 'adapt.privacy.epsilonn', 'Did you mean adapt.privacy.epsilon')


def test_a_value_of_another_type_is_refused(fails):
  says(fails(MICRO, '--config.adapt.steps=many'), 'adapt.steps', "'many'", 'int')


@pytest.mark.parametrize(
  ('flag', 'words'),
  [
    ('--config.sample.solver=dimm', ('sample.solver', "'dimm'", 'ddim, ddpm')),
    ('--config.run.log_every=0', ('run.log_every', '0', 'positive')),
    ('--config.adapt.privacy.microbatch=-1', ('adapt.privacy.microbatch', '0 (all')),
    ('--config.sample.steps=21', ('sample.steps', '21', 'at most', '20')),
    ('--config.sample.eta=-0.5', ('sample.eta', '-0.5')),
    ('--config.diffusion.schedule.name=flow', ('diffusion.prediction', "'flow'")),
    ('--config.diffusion.min_snr_gamma=0', ('diffusion.min_snr_gamma', 'positive')),
    ('--config.adapt.times.density=piecewise', ('adapt.times.pieces', 'shares sum')),
    ('--configs.seed=1', ('--configs.seed=1', '--config.')),
    ('--stages=adopt', ('adopt', 'adapt')),
  ],
)
def test_a_setting_that_cannot_work_is_refused_at_once(fails, flag, words):
  says(fails(MICRO, flag), *words)


def test_a_config_file_that_is_not_there_is_named(fails):
  says(fails('configs/cardiak.py'), 'configs/cardiak.py', '--config')


@pytest.mark.parametrize('missing', ['--config=x.py', '--workdir=w'])
def test_a_missing_flag_ends_with_status_2(missing, capsys):
  assert main.main([missing]) == 2
  assert 'Traceback' not in capsys.readouterr().err


def test_a_file_in_the_place_of_the_workdir_is_refused(fails, tmp_path):
  blocked = tmp_path / 'file'
  blocked.write_text('mine')
  paragraph = fails(MICRO, workdir=blocked)
  says(paragraph, str(blocked), 'cannot be written', '--workdir')
  says(fails(MICRO, workdir=blocked / 'inside'), 'cannot be written', '--workdir')
  assert blocked.read_text() == 'mine'


@pytest.mark.parametrize('stage', ['encode', 'evaluate', 'report'])
def test_a_stage_before_its_upstream_says_which_to_run(fails, monkeypatch, stage):
  monkeypatch.undo()
  paragraph = fails(MICRO, f'--stages={stage}')
  says(paragraph, 'has not been run', '--stages=')


# The files


def test_a_missing_folder_is_named(fails, tmp_path):
  paragraph = fails(of_folder(tmp_path / 'nowhere'))
  says(paragraph, 'nowhere', 'does not exist', 'expected', 'root')


def test_an_empty_folder_is_named(fails, tmp_path):
  (tmp_path / 'empty').mkdir()
  paragraph = fails(of_folder(tmp_path / 'empty'))
  says(paragraph, 'is empty', 'expected', 'table', 'root')


def truncated(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_nifti(path):
  path.write_bytes(b'this is no image')


def not_a_number(path):
  voxels = np.ones((8, 8, 8), np.float32)
  voxels[1, 2, 3] = np.nan
  nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def constant(path):
  nib.save(nib.Nifti1Image(np.full((8, 8, 8), 7, np.int16), np.eye(4)), path)


def of_four_axes(path):
  voxels = np.random.default_rng(0).integers(1, 200, (8, 8, 8, 3)).astype(np.int16)
  nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


@pytest.mark.parametrize(
  ('damage', 'reason'),
  [
    (truncated, 'NIfTI'),
    (no_nifti, 'NIfTI'),
    (not_a_number, 'NaN'),
    (constant, 'constant'),
    (of_four_axes, 'frame'),
  ],
)
def test_a_bad_file_is_named_and_the_good_ones_are_kept(fails, scans, damage, reason):
  bad, store = scans / 'P04.nii.gz', scans.parent / 'work' / 'store'
  sound = bad.read_bytes()
  damage(bad)
  paragraph = fails(of_folder(scans), '--stages=prepare')
  says(paragraph, 'P04', 'data.max_bad_fraction', 'Repair or remove')
  assert reason.lower() in paragraph.lower()
  kept = files(store / 'volumes')
  assert kept, 'the scans before the bad one were lost'
  bad.write_bytes(sound)
  command = [f'--config={of_folder(scans)}', f'--workdir={scans.parent / "work"}']
  assert main.main([*command, '--stages=prepare']) == 0
  now = files(store / 'volumes')
  assert len(now) == NUM_PATIENTS
  assert {path: now[path] for path in kept} == kept, 'good scans were read again'


def test_one_bad_file_below_the_threshold_is_listed_and_left_out(scans, capsys):
  truncated(scans / 'P04.nii.gz')
  work = scans.parent / 'work'
  command = [f'--config={of_folder(scans)}', f'--workdir={work}', '--stages=prepare']
  assert main.main([*command, '--config.data.max_bad_fraction=0.5']) == 0
  assert (
    'WARNING left out' in (printed := capsys.readouterr().out) and 'P04' not in printed
  )
  # A private patient's file: listed in the store, not in the log.
  assert 'P04.nii.gz' in (work / 'store' / 'private.json').read_text()
  assert 'P04' not in (work / 'log.jsonl').read_text()


def test_an_attribute_column_that_is_missing_is_named(fails, scans):
  edit(scans / 'participants.tsv', 'age', 'years')
  says(fails(of_folder(scans)), "'age'", 'years', 'data.schema')


def test_an_attribute_that_is_no_number_is_named_with_its_line(fails, scans):
  edit(scans / 'participants.tsv', '\t32\t', '\tthirty-two\t')
  says(fails(of_folder(scans)), 'line 4', "'age'", 'thirty-two')


def test_an_unknown_category_is_named_with_its_line(fails, scans):
  edit(scans / 'participants.tsv', '32\tF', '32\tX')
  says(fails(of_folder(scans)), 'line 4', "'sex'", 'X', 'F', 'M')


def test_a_patient_on_two_lines_is_refused(fails, scans):
  edit(scans / 'participants.tsv', 'P03\t', 'P02\t')
  says(fails(of_folder(scans)), 'line 5', "'P02'", 'line 4', 'options.visit')


def two_roots(one, other):
  return (
    '--config.data.public.part=',
    '--config.data.private.part=',
    '--config.data.test.layout=',
    f'--config.data.public.root={one}',
    f'--config.data.private.root={other}',
  )


def test_a_patient_in_both_cohorts_is_refused(fails, scans, tmp_path):
  other = write_scans(tmp_path / 'other', first=11)
  paragraph = fails(of_folder(scans), *two_roots(scans, other))
  says(paragraph, 'P11', 'public', 'private')


def test_a_scan_in_both_cohorts_under_two_names_is_refused(fails, scans, tmp_path):
  other = write_scans(tmp_path / 'other', first=20)
  (other / 'P25.nii.gz').write_bytes((scans / 'P03.nii.gz').read_bytes())
  paragraph = fails(of_folder(scans), *two_roots(scans, other))
  says(paragraph, 'P25', 'P03', 'same file', 'Remove one')


# What the cohort and the config do not allow together


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (
      ('--config.adapt.privacy.batch_size=7',),
      ('adapt.privacy.batch_size', '7', '6 patients', 'Lower'),
    ),
    (('--config.adapt.privacy.epsilon=-1',), ('adapt.privacy.epsilon', '-1')),
    (('--config.adapt.privacy.epsilon=0',), ('adapt.privacy.epsilon', 'positive')),
    (('--config.adapt.privacy.epsilon=1e9',), ('adapt.privacy.epsilon', '500')),
    (('--config.adapt.privacy.delta=0.2',), ('adapt.privacy.delta', '1/6', '0.2')),
    (
      ('--config.mesh.data=4', '--config.adapt.privacy.chunk_size=6'),
      ('chunk_size', '4 devices'),
    ),
    (
      ('--config.mesh.data=4', '--config.diffusion.batch_size=6'),
      ('diffusion.batch_size', '4 devices'),
    ),
    (('--config.sample.requests=mine.csv',), ('sample.requests', 'mine.csv')),
    (('--config.data.public.root=gs://b/scans',), ('data.public.root', 'Mount')),
    (('--config.ledger.path=s3://b/ledger',), ('ledger.path', 's3://b/ledger')),
    (('--config.diffusion.init=https://h/unet',), ('diffusion.init', 'an address')),
    (('--workdir=gs://bucket/w',), ('--workdir', 'gs://bucket/w', 'gcsfuse')),
    (('--workdir=file:///tmp/w',), ('--workdir', 'file:///tmp/w')),
    (('--config.counterfactual.set.LVEDW=+9',), ('LVEDW', 'LVEDV')),
    (('--config.data.public.layout=phantom',), ('layout', 'phantom_cardiac')),
  ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(fails, flags, words):
  says(fails(MICRO, *flags), *words)


def test_a_plan_is_checked_although_prepare_is_up_to_date(fails, tmp_path):
  command = [f'--config={MICRO}', f'--workdir={tmp_path / "work"}']
  assert main.main([*command, '--stages=prepare']) == 0
  before = files(tmp_path / 'work')
  says(fails(MICRO, '--config.adapt.privacy.batch_size=7'), 'batch_size', '6 patients')
  changed = {
    path.name
    for path, time in files(tmp_path / 'work').items()
    if before.get(path) != time
  }
  assert not changed, 'a command that was refused wrote something'


def test_an_autoencoder_is_never_fitted_to_private_scans(fails, monkeypatch):
  monkeypatch.undo()
  flags = ('--config.data.public.layout=', '--config.data.test.layout=')
  paragraph = fails(MICRO, *flags, '--stages=prepare,autoencoder')
  says(paragraph, 'data.public is empty', 'refused', 'data.private')


# The disk


@pytest.fixture
def small_disk(tmp_path):
  """A folder on a disk of its own, of 1 MB."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(folder)]
  try:
    done = subprocess.run(mount, capture_output=True)
  except OSError:
    pytest.skip('there is no mount here')
  if done.returncode:
    pytest.skip('only root may mount a disk')
  yield folder
  subprocess.run(['umount', '-l', str(folder)], check=True)


def fill(folder, leave):
  free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
  (folder / 'fill').write_bytes(b'x' * (free - leave))


def test_a_full_disk_ends_prepare_and_the_same_command_continues(fails, small_disk):
  work = small_disk / 'work'
  work.mkdir()
  fill(small_disk, leave=100_000)
  paragraph = fails(MICRO, '--stages=prepare', status=1, workdir=work)
  says(paragraph, 'No space left', str(work), 'Free some space', 'intact')
  kept = files(work / 'store' / 'volumes')
  assert kept
  (small_disk / 'fill').unlink()
  command = [f'--config={MICRO}', f'--workdir={work}', '--stages=prepare']
  assert main.main(command) == 0
  now = files(work / 'store' / 'volumes')
  assert {path: now[path] for path in kept} == kept


def test_a_full_disk_is_told_wherever_it_is_met(fails, tmp_path, monkeypatch):
  def full(*args, **kwargs):
    raise OSError(28, os.strerror(28))

  monkeypatch.setattr(os, 'replace', full)
  paragraph = fails(MICRO, status=1)
  says(paragraph, 'No space left', 'Free some space', '--workdir', 'intact')
  assert not list((tmp_path / 'work').rglob('.incomplete-*')), 'a part was left behind'
