"""Laws of opening a shared model: whole, of one make, light until it is needed."""

import json
import shutil
import subprocess
import sys

import pytest

import ldm_jax
from ldm_jax.sharing import package


@pytest.fixture
def folder(exported, tmp_path):
  return shutil.copytree(exported / 'shareable', tmp_path / 'shareable')


def test_importing_the_package_imports_no_jax():
  script = 'import sys, ldm_jax; print("jax" in sys.modules, ldm_jax.__version__)'
  done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
  assert done.stdout == f'False {ldm_jax.__version__}\n'


def test_folder_and_zip_are_the_same_model(exported):
  folder = ldm_jax.load(exported / 'shareable')
  packed = ldm_jax.load(f'{exported}/shareable.zip')
  assert folder.about == packed.about and folder.privacy == packed.privacy
  assert folder.schema == packed.schema and folder.system.name == packed.system.name


@pytest.mark.parametrize(
  ('change', 'says'),
  [
    (lambda plain: plain.update(format=99), 'has the format 99, expected 1'),
    (lambda plain: plain['settings'].update(sauce=1), 'sauce.*upgrade ldm-jax'),
    (
      lambda plain: plain['settings']['diffusion']['model'].update(channels=[8, 24]),
      'does not fit config.json: denoiser',
    ),
  ],
)
def test_settings_of_another_version_or_model_are_refused(folder, change, says):
  path = folder / package.CONFIG
  plain = json.loads(path.read_text())
  change(plain)
  path.write_text(json.dumps(plain))
  package.seal(folder)
  with pytest.raises(ValueError, match=says):
    ldm_jax.load(folder)
