"""The measuring network's cohort: its own, labelled, and teaches nothing else."""

import pathlib
import shutil

import pytest

from ldm_jax import main
from ldm_jax.config import parsing
from ldm_jax.data.store import latents
from ldm_jax.data.store.split import Split
from ldm_jax.evaluation import measuring_network
from ldm_jax.pipeline import fit_measuring_network
from ldm_jax.pipeline.run import Run
from ldm_jax.workfolder import WorkFolder

MICRO = str(pathlib.Path(__file__).parents[1] / 'micro.py')


def run(arg, root, stages_):
  config = f'{MICRO}:micro{arg}'
  flags = [f'--config={config}', f'--workdir={root}', f'--stages={stages_}']
  return main.main(flags), parsing.load(config)


@pytest.mark.parametrize(
  ('arg', 'teacher'), [('', 'public'), (',measuring=True', 'measuring')]
)
def test_the_network_learns_from_the_measuring_cohort_where_there_is_one(
  arg, teacher, finished, tmp_path, monkeypatch
):
  folder = tmp_path / 'work'
  if not arg:  # the autoencoder is that of the finished folder; all else is made again
    names = ('measurement', 'encode', 'latents', 'volumes', 'prepare')
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns(*names))
  work, taught = WorkFolder(folder), []
  status, config = run(arg, work.root, 'prepare,autoencoder,encode')
  assert status == 0

  def fit(module, params, split, *rest, **options):
    taught.append(split.name)
    return params

  monkeypatch.setattr(measuring_network, 'fit', fit)
  opened = Run(config, work)
  found = opened.splits
  assert fit_measuring_network.network(opened).measures
  assert taught == [teacher]
  encoded = [name for name in found if has_latents(work, found[name])]
  assert encoded == ['public', 'private']


def has_latents(work, split):
  tag = work.read_json('checkpoints', 'encode', 'done.json')['tag']
  return latents.read(work.store, split, tag) is not None


def test_a_measuring_cohort_without_labels_is_refused_at_once(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(Split, 'is_labelled', False)
  status, _ = run(',measuring=True', tmp_path, 'prepare')
  said = ' '.join(capsys.readouterr().err.split())
  assert status == 2 and 'data.measuring has labels' in said
