"""Laws of the stage `encode`: means, deviations on request, one preprocessing."""

import pathlib
import shutil
import types

import numpy as np
import pytest

from ldm_jax import main
from ldm_jax.data.store import latents, store
from ldm_jax.pipeline import encode
from ldm_jax.pipeline.run import Run
from ldm_jax.workfolder import WorkFolder

MICRO = pathlib.Path(__file__).parents[1] / 'micro.py'


def test_log_variances_are_kept_on_request_and_other_preprocessing_is_refused(
  finished, tmp_path, capsys
):
  work = WorkFolder(shutil.copytree(finished, tmp_path / 'work'))
  flags = [f'--config={MICRO}', f'--workdir={work.root}', '--stages=encode']
  split = store.open_split(work.store, 'public')
  tag = work.read_json('checkpoints', 'encode', 'done.json')['tag']
  before = np.array(latents.read(work.store, split, tag))
  assert latents.read(work.store, split, tag, 'logvar') is None
  assert main.main([*flags, '--config.encode.logvar=True']) == 0
  logvar = latents.read(work.store, split, tag, 'logvar')
  assert logvar.shape == before.shape and np.isfinite(logvar).all()
  np.testing.assert_allclose(latents.read(work.store, split, tag), before, atol=1e-5)
  capsys.readouterr()
  other = '--config.data.preprocess.percentiles=(1.0, 95.0)'
  assert main.main([*flags, other]) == 2
  assert 'preprocess.percentiles is' in capsys.readouterr().err
  assert main.main([*flags[:2], '--stages=prepare', other]) == 0
  assert main.main([*flags, other]) == 2
  assert 'the autoencoder was trained with' in ' '.join(capsys.readouterr().err.split())


@pytest.mark.parametrize('copies', [1, 2])
def test_a_redrawn_latent_has_the_posterior_s_mean_and_deviation(tmp_path, copies):
  work = WorkFolder(tmp_path)
  rng = np.random.default_rng(0)
  mean = rng.normal(size=(3, 2, 4, 4, 2)).astype(np.float32)
  logvar = rng.normal(-2, 1, mean.shape).astype(np.float32)
  statistics = {'mean': [0.0, 0.0], 'std': [0.5, 2.0]}
  done = {'fingerprint': 'f', 'tag': 't'}
  work.write_json(done, 'checkpoints', 'encode', 'done.json')
  work.write_json(statistics, 'checkpoints', 'encode', 'latent_statistics.json')
  split = Keys(['a', 'b', 'c'])
  config = types.SimpleNamespace(seed=3, encode=types.SimpleNamespace(logvar=True))
  run = Run(config, work)
  with pytest.raises(ValueError, match='--stages=encode'):
    encode.redraw(run, split)
  latents.write(work.store, split, 't', logvar, 'logvar')
  redraw = encode.redraw(run, split)
  indices = np.arange(3 * copies)
  z = np.tile(mean, (copies, 1, 1, 1, 1))
  draws = np.stack([redraw(z, indices, step) for step in range(800)])
  std = np.tile(np.exp(logvar / 2) / (0.5, 2.0), (copies, 1, 1, 1, 1))
  np.testing.assert_allclose((draws.mean(0) - z) / std, 0, atol=0.2)
  np.testing.assert_allclose(draws.std(0) / std, 1, atol=0.15)
  assert np.array_equal(redraw(z, indices, 5), draws[5])
  config.encode.logvar = False
  assert encode.redraw(run, split)(z, indices, 5) is z


class Keys:
  """As much of a split as latents are named by."""

  def __init__(self, keys):
    self.keys, self.name = keys, 'public'

  def __len__(self):
    return len(self.keys)
