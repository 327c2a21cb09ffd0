"""Laws of `--stages=doctor`: all is told, private parts are marked, nothing trained."""

import json
import os
import pathlib
import re

import nibabel as nib
import numpy as np
import pytest

from ldm_jax import main

ROOT = pathlib.Path(__file__).resolve().parents[2]


def save(path, seed, gain=1.0):
  voxels = np.random.default_rng(seed).integers(1, 200, (8, 8, 8)) ** gain
  nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.eye(4)), path)


def folder(root, seeds):
  root.mkdir()
  lines = ['participant_id\tage\tsex']
  for seed in seeds:
    save(root / f'P{seed:02d}.nii.gz', seed)
    lines.append(f'P{seed:02d}\t{30 + seed}\t{"FM"[seed % 2]}')
  (root / 'participants.tsv').write_text('\n'.join(lines) + '\n')
  return root


@pytest.fixture(scope='module')
def examined(tmp_path_factory):
  """Work folder after doctor on two cohorts that share three patients."""
  place = tmp_path_factory.mktemp('doctor')
  public = folder(place / 'a', range(8))
  private = folder(place / os.fsdecode(b'not text \xff'), range(7, 20))
  (private / 'P12.nii.gz').write_bytes((public / 'P03.nii.gz').read_bytes())
  save(private / 'P15.nii.gz', 4, gain=0.8)
  (private / 'P16.nii.gz').write_bytes(b'no image')
  (private / 'participants.tsv').write_text(
    (private / 'participants.tsv').read_text().replace('\t43\t', '\t143\t')
  )
  config = f'{ROOT}/configs/folder.py:tiny,root={public},shape=8x8x8,spacing=1x1x1,'
  config += 'split=demo,'
  status = main.main(
    [
      f'--config={config}attributes=age:20:90;sex:F|M',
      f'--workdir={place / "work"}',
      '--stages=doctor',
      '--config.data.public.part=',
      '--config.data.private.part=',
      '--config.data.test.layout=',
      f'--config.data.private.root={private}',
      '--config.adapt.privacy.batch_size=4',
      '--config.diffusion.batch_size=8',
    ]
  )
  assert status == 0
  return place / 'work'


def read(work, name):
  inside = work / 'store' / 'doctor' / name
  path = inside if inside.is_file() else work / 'doctor' / name
  return json.loads(path.read_text())


def test_patients_in_both_cohorts_are_told_however_they_hide(examined):
  told = '\n'.join(read(examined, 'shared.json')['shared'])
  for words in (
    'patient P07 is in public and in private',
    'P12 of private is the same file as P03 of public',
    'P15 of private looks like P04 of public',
  ):
    assert words in told


def test_a_broken_scan_and_an_impossible_age_are_told(examined):
  found = read(examined, 'private.json')
  assert found['internal'] and not read(examined, 'public.json')['internal']
  assert len(found['unreadable']) == 1 and 'P16' in found['unreadable'][0]
  assert found['out_of_range'] == ['P13: age = 143.0 lies outside [20, 90]']


def test_what_leaves_the_store_tells_nothing_of_private_patients(examined):
  names = {path.name for path in (examined / 'doctor').iterdir()}
  assert names == {'public.json', 'plan.json', 'grid.json'}
  page = (examined / 'report' / 'doctor.html').read_text()
  assert '<section id="public">' in page and '<section id="private">' not in page
  assert 'class="badge"' not in page
  for text in (page, *((examined / 'doctor' / name).read_text() for name in names)):
    text = re.sub(r'base64,[\w+/=]*', '', text)
    assert not re.search(r'\bP(0[89]|1\d)\b|= 143', text)


def test_the_page_marks_what_shows_private_scans_and_needs_nothing_else(examined):
  page = (examined / 'store' / 'doctor' / 'doctor.html').read_text()
  sections = dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.S))
  assert list(sections) == ['summary', 'grid', 'public', 'private', 'noise', 'cost']
  badge = 'class="badge"'
  assert badge in sections['private'] and badge not in sections['public']
  assert 'data:image/png' in sections['public']
  assert not re.search(r'(src|href)="(?!data:|#)', page)
  assert 'P16' in sections['private'] and 'σ√d' in sections['noise']
  assert sections['cost'].count(badge) == 1, 'prepare has seen the private scans'
  for stage in ('autoencoder', 'diffusion', 'adapt', 'sample'):
    assert f'>{stage}<' in sections['cost']


def test_nothing_is_trained_and_nothing_spent(examined):
  assert {path.name for path in examined.iterdir()} == {
    *('config.json', 'doctor', 'report', 'store')
  }
