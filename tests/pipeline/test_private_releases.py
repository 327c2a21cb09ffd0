"""Laws of what is published beside the model: within the budget, once, by the ledger.

The stages run in a copy of the session's finished folder.
"""

import csv
import json
import pathlib
import shutil

import numpy as np
import pytest

from ldm_jax import main
from ldm_jax.config import parsing
from ldm_jax.data.store import store
from ldm_jax.pipeline import private_releases
from ldm_jax.pipeline.run import Run
from ldm_jax.privacy import accounting, marginals, secret_key
from ldm_jax.synthesis.requests import PRIOR
from ldm_jax.workfolder import WorkFolder

MICRO = pathlib.Path(__file__).parents[1] / 'micro.py'
ATTRIBUTES = 'adapt.privacy.releases.attributes'
ASKED = {
  f'{ATTRIBUTES}.epsilon': 4.0,
  f'{ATTRIBUTES}.num_bins': 4,
  f'{ATTRIBUTES}.pairs': (('SEX', 'LVEDV'),),
  'sample.requests': 'private_prior',
  'adapt.steps': 2,
}


@pytest.fixture
def unspent(finished, tmp_path):
  """A copy before the stage `adapt`, with an empty ledger."""
  ignore = shutil.ignore_patterns(
    'ledger-private.jsonl*', 'privacy.json', 'adapt', 'sample'
  )
  return shutil.copytree(finished, tmp_path / 'work', ignore=ignore)


def run(work, stages):
  flags = [f'--config.{key}={value}' for key, value in ASKED.items()]
  upstream = 'prepare,autoencoder,encode,diffusion'
  where = [f'--config={MICRO}', f'--workdir={work}', f'--stages={upstream},{stages}']
  return main.main([*where, *flags])


def asked(**changes):
  config = parsing.load(str(MICRO))
  return parsing.override(config, {**ASKED, **changes})


def test_the_prior_is_released_once_within_the_budget_and_drawn_from(
  unspent, monkeypatch
):
  work, config = WorkFolder(unspent), asked()
  opened = Run(config, work)
  book = opened.ledger

  def killed(*args):
    assert len(book.releases()) == 2, 'computed before both releases were recorded'
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(marginals, 'compute', killed)
    assert run(unspent, 'adapt') == 130
  recorded = book.releases()
  assert [each['randomness'] for each in recorded] == ['fixed seed'] * 2
  assert not unspent.joinpath(*PRIOR).exists()
  assert run(unspent, 'adapt,sample') == 0
  assert book.releases() == recorded, 'a resumed run recorded another release'

  statement = json.loads((unspent / 'privacy.json').read_text())
  assert [entry['steps'] for entry in statement['releases']] == [1, 2]
  assert statement['releases'][0]['name'] == private_releases.NAME
  assert statement['releases'][0]['epsilon'] == pytest.approx(4.0, rel=1e-3)
  events = [accounting.event(entry) for entry in statement['releases']]
  total = accounting.epsilon(events, statement['delta'])['pld']
  assert 9.9 < total <= config.adapt.privacy.epsilon
  assert total == pytest.approx(statement['epsilon'])

  kept = json.loads(unspent.joinpath(*PRIOR).read_text())
  schema = store.open_split(unspent / 'store', 'private').schema
  expected = marginals.draw(kept['prior'], schema, 4, np.random.default_rng((0, 2)))
  with open(unspent / 'samples' / 'samples.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  for row, vector in zip(rows, expected, strict=True):
    values = {name: row[name] for name in schema.names}
    np.testing.assert_allclose(schema.encode(values), vector, atol=1e-3)

  # Another run asks the same of the same patients: nothing more is spent.
  before = unspent.joinpath(*PRIOR).read_bytes()
  assert private_releases.planned(opened, 'another run') == []
  key = secret_key.new_noise_key()
  private_releases.publish(opened, 'another run', key)
  assert unspent.joinpath(*PRIOR).read_bytes() == before
  # Another question is another release, and nothing is computed before it is recorded.
  other = Run(asked(**{f'{ATTRIBUTES}.num_bins': 5}), work)
  assert len(private_releases.planned(other, 'another run')) == 1
  with pytest.raises(ValueError, match='not recorded'):
    private_releases.publish(other, 'another run', key)
  assert unspent.joinpath(*PRIOR).read_bytes() == before


@pytest.mark.parametrize(
  ('changes', 'named'),
  [
    ({f'{ATTRIBUTES}.epsilon': 10.0}, f'{ATTRIBUTES}.epsilon'),
    ({f'{ATTRIBUTES}.epsilon': None}, 'sample.requests'),
    ({'adapt.privacy': None}, 'sample.requests'),
    ({f'{ATTRIBUTES}.num_bins': 0}, f'{ATTRIBUTES}.num_bins'),
    ({f'{ATTRIBUTES}.pairs': (('SEX', 'SHOE'),)}, f'{ATTRIBUTES}.pairs'),
  ],
)
def test_a_release_that_cannot_be_is_refused_before_anything_runs(
  finished, tmp_path, capsys, changes, named
):
  work = shutil.copytree(finished, tmp_path / 'work')
  values = {**ASKED, **changes}
  if 'adapt.privacy' in changes:
    values = {'sample.requests': 'private_prior', **changes}
  flags = [f'--config.{key}={value}' for key, value in values.items()]
  status = main.main(
    [f'--config={MICRO}', f'--workdir={work}', '--stages=prepare,sample', *flags]
  )
  assert status == 2
  assert named in capsys.readouterr().err
