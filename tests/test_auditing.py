"""Laws of the audit of a config's own step: it holds, costs nothing, and can fail."""

import json
import pathlib
import shutil

import pytest

from ldm_jax import main
from ldm_jax.privacy import mechanism

MICRO = pathlib.Path(__file__).with_name('micro.py')
FEW = ('--config.audit.num_canaries=16', '--config.audit.participations=2')


@pytest.fixture
def copy(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / 'work')


def run(work, *flags):
  where = [f'--config={MICRO}', f'--workdir={work}', '--stages=audit']
  return main.main([*where, *FEW, *flags])


def test_the_configs_step_holds_its_claim_and_a_broken_one_ends_with_status_1(
  copy, monkeypatch, capsys
):
  ledger = copy / 'store' / 'ledger-private.jsonl'
  before = ledger.read_bytes(), (copy / 'privacy.json').read_bytes()
  assert run(copy) == 0
  found = json.loads((copy / 'audit.json').read_text())
  assert found['holds'] is True
  gradient, loss = found['gradient_canaries'], found['loss_canaries']
  assert gradient['epsilon_low'] <= gradient['epsilon_claimed']
  assert gradient['noise']['low'] <= found['claim']['noise_multiplier']
  assert gradient['noise']['high'] >= found['claim']['noise_multiplier']
  assert loss['epsilon_low'] <= loss['epsilon_claimed']
  assert found['influence']['largest'] == pytest.approx(1, abs=2e-3)
  assert found['claim']['epsilon'] == pytest.approx(10, rel=1e-3)
  printed = capsys.readouterr().out
  assert 'holds' in printed and 'gradient canaries' in printed
  # Nothing private was touched: nothing was recorded.
  assert (ledger.read_bytes(), (copy / 'privacy.json').read_bytes()) == before

  privatise = mechanism.privatise

  def weak(total, key, step, sigma, *rest, **options):
    return privatise(total, key, step, sigma / 5, *rest, **options)

  monkeypatch.setattr(mechanism, 'privatise', weak)
  assert run(copy) == 1
  assert 'does not keep its claim' in capsys.readouterr().err
  assert json.loads((copy / 'audit.json').read_text())['holds'] is False


def test_an_audit_without_privacy_is_refused(copy, capsys):
  assert run(copy, '--config.adapt.privacy=None') == 2
  assert 'adapt.privacy is None' in capsys.readouterr().err
