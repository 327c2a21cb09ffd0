"""Laws of the stage export: what is refused, what leaves, and that it is made once."""

import hashlib
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from ldm_jax import main
from ldm_jax.config.parsing import override
from ldm_jax.data.readers import volume
from ldm_jax.pipeline import export
from ldm_jax.pipeline.run import Run
from ldm_jax.sharing import package
from ldm_jax.workfolder import WorkFolder
from tests import micro
from tests.test_what_leaves import holding

FLAGS = ('--config=tests/micro.py', '--stages=export')
UNPROTECTED = '--config.export.unprotected=true'
PRIVATE = {'releases': [{}], 'private': True, 'demonstration_only': False}


def run(work, *flags):
  return main.main([*FLAGS, f'--workdir={work}', *flags])


def test_only_a_statement_that_guarantees_something_is_protection():
  assert export.unprotected_because(PRIVATE) == ''
  for change, word in (
    ({'releases': []}, 'no release'),
    ({'private': False}, 'too little noise or none'),
    ({'demonstration_only': True}, 'fixed or unknown key'),
    ({'demonstration_split': {'share_unprotected': 0.5}}, 'split by lot'),
  ):
    assert word in export.unprotected_because({**PRIVATE, **change})
  assert export.unprotected_because({})


@pytest.mark.parametrize(
  ('changes', 'says'),
  [
    ({'adapt.privacy': None}, 'adapt.privacy is None'),
    ({'adapt.privacy.seed': 0}, 'adapt.privacy.seed is 0'),
  ],
)
def test_what_protects_nobody_is_refused_before_anything_is_trained(
  tmp_path, changes, says
):
  run = Run(override(micro.get_config(), changes), WorkFolder(tmp_path))
  with pytest.raises(ValueError, match=says) as error:
    export.check(run)
  assert UNPROTECTED in str(error.value)
  override(run.config, {'export.unprotected': True})
  export.check(run)
  private = override(micro.get_config(), {'adapt.privacy.seed': None})
  export.check(Run(private, WorkFolder(tmp_path)))


def test_paths_in_the_statement_shrink_to_their_last_name():
  told = {'a': ['weights from /data/x-y/net: unchecked', '~/b/c.pt, 1/2'], 'n': 3}
  expected = {'a': ['weights from net: unchecked', 'c.pt, 1/2'], 'n': 3}
  assert export.without_paths(told) == expected


def test_the_folder_has_every_file_of_the_contract_and_its_hash(exported):
  folder = exported / 'shareable'
  names = {p.relative_to(folder).as_posix() for p in package.files(folder)}
  expected = {*package.NEEDED, package.CARD, package.REPORT, package.SUMS}
  assert {name for name in names if not name.startswith('samples/')} == expected
  assert 'samples/synthetic_00003.nii.gz' in names
  sums = package.sums((folder / package.SUMS).read_text())
  assert set(sums) == names - {package.SUMS}
  for name, digest in sums.items():
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_edits_of_scans_that_are_not_public_are_refused_and_public_ones_leave(
  exported, tmp_path, capsys
):
  flags = (UNPROTECTED, '--config.export.counterfactuals=true')
  work = shutil.copytree(exported, tmp_path / 'work')
  assert run(work, *flags, '--config.counterfactual.source=test') == 2
  assert 'an edit of a scan is a scan of that patient' in capsys.readouterr().err
  assert run(work, *flags, '--config.export.dicom=true') == 0
  arrays = WorkFolder(work).read_arrays('counterfactuals.npz')
  folder = work / 'shareable' / 'counterfactuals'
  written = sorted(folder.glob('*.nii.gz'))
  assert len(written) == len(arrays['new']) > 0
  for place in (folder, work / 'shareable' / 'samples'):
    for path in place.glob('*.nii.gz'):
      series = place / 'dicom' / path.name.removesuffix('.nii.gz')
      apart = volume.read(series).array - volume.read(path).array
      assert np.abs(apart).max() < 1e-5


def internal_figures(entry, marked=False):
  """All figures with many digits that are marked internal, or stand inside of such."""
  if isinstance(entry, dict):
    marked = marked or bool(entry.get('internal'))
    for part in entry.values():
      yield from internal_figures(part, marked)
  elif marked and isinstance(entry, float) and len(repr(entry)) > 8:
    yield repr(entry)


def markers(run):
  """How private patients may stand in a file: ids, attributes, voxels, figures."""
  words = set(internal_figures(run.work.read_json('metrics.json')))
  found = {word.encode() for word in words}
  for cohort in ('private', 'test'):
    split = run.splits[cohort]
    found |= {str(name).encode() for name in (*split.ids, *split.patients)}
    # Three attributes in a row are of one patient.
    found |= {vector[:3].astype(np.float32).tobytes() for vector in split.attributes}
    volumes = split.volumes(np.arange(len(split)))[..., 0]
    middle, row = volumes.shape[1] // 2, volumes.shape[2] // 2
    for scan in volumes[:, middle, row]:
      grey = np.round(255 * np.clip(scan, 0, 1)).astype(np.uint8)
      found |= {scan.tobytes(), grey.tobytes(), grey[::-1].tobytes()}
  return {word for word in found if len(word) > 3 and len(set(word)) > 3}


def test_no_id_volume_or_figure_of_private_patients_is_in_a_file_that_leaves(exported):
  words = markers(Run(micro.get_config(), WorkFolder(exported)))
  assert len(words) > 60
  packed = exported / 'shareable.zip'
  leaving = [packed, *package.files(exported / 'shareable')]
  assert not holding(leaving, words)
  inside = [*(exported / 'store').rglob('private*.json'), exported / 'metrics.json']
  assert len(holding(inside, words)) == len(inside), 'the search finds what stays'


def test_every_page_of_an_unprotected_export_says_so(exported):
  folder = exported / 'shareable'
  for name in (package.CARD, package.REPORT, package.CONFIG, 'samples/README'):
    assert export.START in (folder / name).read_text(), name


def test_it_is_made_once_and_again_with_the_same_bytes(exported, tmp_path, capsys):
  work = shutil.copytree(exported, tmp_path / 'work')
  before = (work / 'shareable.zip').read_bytes()
  assert run(work, UNPROTECTED) == 0
  assert 'export: up to date' in capsys.readouterr().out
  (work / 'checkpoints' / 'export' / 'done.json').unlink()
  assert run(work, UNPROTECTED) == 0
  assert (work / 'shareable.zip').read_bytes() == before


def test_a_refused_export_leaves_nothing_half_and_the_earlier_one_whole(
  exported, tmp_path, capsys, monkeypatch
):
  work = shutil.copytree(exported, tmp_path / 'work')
  before = {p: p.read_bytes() for p in package.files(work / 'shareable')}
  assert run(work) == 2
  assert 'seed is 0' in capsys.readouterr().err
  samples = work / 'checkpoints' / 'sample' / 'done.json'
  done = json.loads(samples.read_text())
  samples.write_text(json.dumps({**done, 'model': 'another'}))
  (work / 'checkpoints' / 'export' / 'done.json').unlink()
  assert run(work, UNPROTECTED) == 2
  assert 'Draw them again: --stages=sample,export' in capsys.readouterr().err
  samples.write_text(json.dumps(done))
  leak = lambda config: 'CANARY/at/12:30:00'
  monkeypatch.setattr(export, '_suffix', leak)
  assert run(work, UNPROTECTED) == 2
  assert 'a time or date' in capsys.readouterr().err
  assert {p: p.read_bytes() for p in package.files(work / 'shareable')} == before


def test_volumes_of_the_work_folder_say_that_they_are_synthetic_but_for_sources(
  exported,
):
  paths = [
    *(exported / 'samples').glob('*.nii.gz'),
    *(exported / 'counterfactuals').glob('*.nii.gz'),
  ]
  said = {path: nib.load(path).header['descrip'].item() for path in paths}
  assert len(said) > 8
  for path, text in said.items():
    is_source = path.name.endswith('_source.nii.gz')
    assert text.startswith(b'SYNTHETIC') != is_source, path.name
