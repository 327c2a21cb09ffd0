"""Laws of the audit of a config's own step: it holds, costs nothing, and can fail.

That broken steps are caught is shown in tests/privacy/test_broken.py.
"""

import copy
import json
import math
import pathlib
import shutil

import pytest

from ldm_jax import main
from ldm_jax.pipeline import audit
from ldm_jax.workfolder import WorkFolder

MICRO = pathlib.Path(__file__).parents[1] / 'micro.py'
# Two devices, so that what rests on one does not meet what rests on both unnoticed.
FEW = (
  '--config.audit.num_canaries=8',
  '--config.audit.participations=2',
  '--config.mesh.data=2',
)
SOUND = {
  'claim': {'noise_multiplier': 1.2},
  'confidence': 0.95,
  'gradient_canaries': {
    'epsilon_claimed': 6.0,
    'epsilon_low': 4.0,
    'one_run': 1.0,
    'participations': 4,
    'noise': {'value': 1.19, 'low': 1.1, 'high': 1.3},
  },
  'loss_canaries': {
    'epsilon_claimed': 9.0,
    'epsilon_low': 0.0,
    'participations': 8,
    'patients': 96,
  },
  'influence': {'largest': 1.0002, 'limit': 1.001, 'patients': 4},
}


def run(work, *flags):
  where = [f'--config={MICRO}', f'--workdir={work}', '--stages=audit']
  return main.main([*where, *FEW, *flags])


def test_the_step_of_a_config_holds_its_claim_and_nothing_is_spent(
  finished, tmp_path, capsys
):
  work = shutil.copytree(finished, tmp_path / 'work')
  ledger = work / 'store' / 'ledger-private.jsonl'
  before = ledger.read_bytes(), (work / 'privacy.json').read_bytes()
  assert run(work) == 0
  found = json.loads((work / 'audit.json').read_text())
  assert found['holds'] is True
  gradient, loss = found['gradient_canaries'], found['loss_canaries']
  assert gradient['epsilon_low'] <= gradient['epsilon_claimed']
  noise, sigma = gradient['noise'], found['claim']['noise_multiplier']
  assert noise['low'] <= sigma <= noise['high']
  assert loss['epsilon_low'] <= loss['epsilon_claimed']
  assert found['influence']['largest'] == pytest.approx(1, abs=2e-3)
  assert found['claim']['epsilon'] == pytest.approx(10, rel=1e-3)
  assert 'gradient canaries' in capsys.readouterr().out
  assert (ledger.read_bytes(), (work / 'privacy.json').read_bytes()) == before
  assert run(work, '--config.adapt.privacy=None') == 2
  assert 'adapt.privacy is None' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('part', 'entry', 'value'),
  [
    ('gradient_canaries', 'epsilon_low', math.inf),
    ('gradient_canaries', 'noise', {'value': 0.6, 'low': 0.5, 'high': 0.7}),
    ('loss_canaries', 'epsilon_low', 9.1),
    ('influence', 'largest', 1.2),
  ],
)
def test_any_finding_against_the_claim_ends_in_an_error_and_is_written(
  tmp_path, part, entry, value
):
  work, found = WorkFolder(tmp_path), copy.deepcopy(SOUND)
  assert audit.conclude(found, work)['holds'] is True
  found[part][entry] = value
  with pytest.raises(RuntimeError, match='does not keep its claim'):
    audit.conclude(found, work)
  assert json.loads((tmp_path / 'audit.json').read_text())['holds'] is False
