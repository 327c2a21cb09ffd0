"""Package metadata, dependencies and command-line entry points of ldm_jax."""

import pathlib
import re
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent
FRONT = (HERE / 'ldm_jax' / '__init__.py').read_text(encoding='utf-8')
VERSION = re.search(r"__version__ = '(.+)'", FRONT)[1]
# Public address of the checkout, https://github.com/OWNER/NAME; '' where it has none.
# After a change `python notebooks/badges.py` writes the links to Colab.
REPOSITORY = ''
# Folders of the checkout that an installed package has in ldm_jax/packaged.
PACKAGED = ('configs', 'launch')


class BuildWithConfigs(build_py):
  """Copies PACKAGED into the wheel, where `ldm-jax --config=cardiac:tiny` looks."""

  def run(self):
    super().run()
    if self.editable_mode:
      return  # the checkout has them
    for folder in PACKAGED:
      for path in sorted((HERE / folder).iterdir()):
        if path.suffix in ('.py', '.sh'):
          target = pathlib.Path(self.build_lib, 'ldm_jax', 'packaged', folder)
          target.mkdir(parents=True, exist_ok=True)
          shutil.copy2(path, target)


setup(
  name='ldm-jax',
  version=VERSION,
  description='Private, controllable 3D latent diffusion for medical imaging in JAX',
  long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  url=REPOSITORY or None,
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=find_packages(include=['ldm_jax', 'ldm_jax.*']),
  package_data={
    'ldm_jax': ['py.typed'],
    'ldm_jax.report': ['templates/*'],
    'ldm_jax.studio': ['static/*'],
  },
  cmdclass={'build_py': BuildWithConfigs},
  install_requires=[
    'jax>=0.10,<0.13',
    'flax>=0.12',
    'optax>=0.2.6',
    'orbax-checkpoint>=0.11',
    'jax-privacy>=2.0',
    'dp-accounting>=0.6',
    'ml-collections>=1.1',
    'isal>=1.7',
    'jinja2>=3.1',
    'nibabel>=5.3',
    'pydicom>=3.0',
    # Codecs of compressed DICOM, all with permissive licences and wheels.
    'pylibjpeg>=2.0',
    'pylibjpeg-openjpeg>=2.3',
    'python-gdcm>=3.0.24',
    'ml-dtypes>=0.5',
    'numpy>=1.26',
    'pillow>=10',
    'safetensors>=0.4',
    'scipy>=1.11',
    'matplotlib>=3.8',
    'tensorboardX>=2.6',
    'threadpoolctl>=3.5',
    'tqdm>=4.66',
    'xlrd>=2.0.1',
  ],
  extras_require={
    'cuda': ['jax[cuda12]>=0.10,<0.13'],
    'tpu': ['jax[tpu]>=0.10,<0.13'],
    # Up to the newest versions whose numbers the tests have compared with ours.
    'interop': [
      'torch>=2.4,<2.14',
      'monai>=1.5,<1.7',
      'einops>=0.8,<1',
      'diffusers>=0.36,<1',
    ],
    # adapt.privacy.generator='chacha20'.
    'chacha20': ['cryptography>=42'],
    # run.wandb; the settings that keep it from looking at the machine are new.
    'wandb': ['wandb>=0.31,<1'],
    # For the name: reading and writing DICOM needs no more than a plain install.
    'dicom': ['pydicom>=3.0'],
    'studio': ['starlette>=0.40', 'uvicorn>=0.30'],
    'notebook': ['jupyterlab>=4.2,<5', 'ipywidgets>=8.1,<9'],
    'docs': [
      'mkdocs>=1.6,<2',
      'mkdocs-gen-files>=0.5',
      'mkdocs-literate-nav>=0.6',
      'mkdocs-material>=9.5,<10',
      'mkdocstrings[python]>=0.26',
    ],
    'tfds': ['tensorflow-datasets>=4.9.9', 'array-record>=0.8'],
    'dev': [
      'pytest>=8',
      'setuptools>=68',  # tests/test_packaging.py
      'pytest-timeout>=2.3',
      'pytest-xdist>=3.5',
      'hypothesis>=6.100',
      'mypy>=1.11',
      'xlwt>=1.3',
      'ruff>=0.8',
      'pre-commit>=3.7',
      # The tests of adapt.privacy.generator: as in the extra chacha20.
      'cryptography>=42',
      # The studio and its page, in a Chromium of the system.
      'starlette>=0.40',
      'uvicorn>=0.30',
      'playwright>=1.44',
      'kubernetes-validate>=1.30',  # manifests of launch/k8s.sh
      # The builders' tests: as in the extra tfds.
      'tensorflow-datasets>=4.9.9',
      'array-record>=0.8',
    ],
  },
  entry_points={
    'console_scripts': [
      'ldm-jax=ldm_jax.main:run',
      'ldm-jax-convert=ldm_jax.commands.convert_weights:run',
      'ldm-jax-privacy=ldm_jax.commands.plan_privacy:main',
      'ldm-jax-sample=ldm_jax.commands.sample_shared:run',
      'ldm-jax-studio=ldm_jax.studio.command:run',
    ],
  },
)
