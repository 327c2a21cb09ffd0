"""The package as it is built: from the Dockerfile's files, and from its own sdist."""

import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import pytest

pytest.importorskip('setuptools', reason='needs setuptools, of the extra dev')

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ('.github', 'benchmarks', 'configs', 'docs', 'launch', 'ldm_jax')
FOLDERS += ('notebooks', 'tests')
LEFT_OUT = shutil.ignore_patterns('__pycache__', '*.egg-info')


def setup(folder, *command):
  command = [sys.executable, 'setup.py', '-q', *map(str, command)]
  subprocess.run(command, cwd=folder, check=True, capture_output=True)


def files(folder):
  return {
    path.relative_to(folder).as_posix()
    for path in folder.rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
  }


def check_whole(source, target):
  """Builds the package of a folder; all that it needs where it runs must be there."""
  setup(source, 'build_py', '--build-lib', target)
  built = files(target)
  inside = {f'ldm_jax/{name}' for name in files(ROOT / 'ldm_jax')}
  assert built >= inside
  packaged = {
    f'ldm_jax/packaged/{folder}/{path.name}'
    for folder in ('configs', 'launch')
    for path in (ROOT / folder).iterdir()
    if path.suffix in ('.py', '.sh')
  }
  assert built - inside == packaged
  for name in ('py.typed', 'studio/static/niivue.umd.js', 'report/templates/style.css'):
    assert f'ldm_jax/{name}' in built


def test_what_the_dockerfile_copies_builds_a_whole_package(tmp_path):
  source = tmp_path / 'src'
  source.mkdir()
  lines = re.findall(r'^COPY (.+)$', (ROOT / 'Dockerfile').read_text(), re.MULTILINE)
  for line in lines:
    *names, target = line.split()
    for name in names:
      if (ROOT / name).is_dir():
        shutil.copytree(ROOT / name, source / target, ignore=LEFT_OUT)
      else:
        shutil.copy(ROOT / name, source / target)
  check_whole(source, tmp_path / 'built')


def test_the_sdist_has_all_that_a_checkout_has_and_builds_the_same_package(tmp_path):
  checkout = tmp_path / 'checkout'
  checkout.mkdir()
  for path in ROOT.iterdir():
    if path.is_file():
      shutil.copy(path, checkout)
    elif path.name in FOLDERS:
      shutil.copytree(path, checkout / path.name, ignore=LEFT_OUT)
  setup(checkout, 'sdist', '--dist-dir', tmp_path / 'dist')
  (packed,) = (tmp_path / 'dist').iterdir()
  with tarfile.open(packed) as archive:
    archive.extractall(tmp_path, filter='data')
  unpacked = tmp_path / packed.name.removesuffix('.tar.gz')
  wanted = {f'{name}/{each}' for name in FOLDERS for each in files(ROOT / name)}
  wanted |= {'Dockerfile', 'README.md', 'LICENSE'}
  assert wanted <= files(unpacked)
  check_whole(unpacked, tmp_path / 'built')


def test_every_script_that_the_workflow_runs_exists():
  workflow = (ROOT / '.github' / 'workflows' / 'test.yml').read_text()
  scripts = re.findall(r'run: (launch/\S+)', workflow)
  assert scripts == ['launch/test.sh', 'launch/docs.sh']
  assert all((ROOT / name).stat().st_mode & 0o100 for name in scripts)


def test_a_container_keeps_the_registry_of_releases_where_results_are_mounted():
  text = (ROOT / 'Dockerfile').read_text()
  assert '-v "$PWD/runs:/work"' in text and '\nENV HOME=/work\n' in text
