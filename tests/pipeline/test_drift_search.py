"""Laws of the search for a drift: what it finds, what it may see, what it costs.

The stages run in copies of the session's finished folder.
"""

import shutil

import numpy as np
import pytest

from ldm_jax.config import parsing
from ldm_jax.diffusion import shift
from ldm_jax.models.denoisers.conditional import ConditionalDenoiser
from ldm_jax.pipeline import drift_search, private_releases, runner
from ldm_jax.pipeline.run import Run
from ldm_jax.privacy import accounting, releases, secret_key
from ldm_jax.training import drift_setting
from ldm_jax.workfolder import WorkFolder
from tests import micro

GRID = (-0.2, 0.0, 0.1)
QUICK = {
  'adapt.drift.grid': GRID,
  'adapt.drift.num_samples': 4,
  'adapt.drift.num_draws': 2,
  'adapt.drift.trial_steps': 1,
  'sample.steps': 2,
}


def asked(**changes):
  return parsing.override(micro.get_config(), {**QUICK, **changes})


def searching(search, **changes):
  return asked(**{'adapt.drift.search': search, **changes})


@pytest.fixture(scope='module')
def unspent(finished, tmp_path_factory):
  """A copy of the finished folder before the stage `adapt`, with an empty ledger."""
  ignore = shutil.ignore_patterns(
    'ledger-private.jsonl*', 'privacy.json', 'adapt', 'sample'
  )
  place = tmp_path_factory.mktemp('unspent') / 'work'
  return shutil.copytree(finished, place, ignore=ignore)


def begun(unspent, place, config):
  """A copy in which the stage `adapt` has begun."""
  run = Run.open(config, shutil.copytree(unspent, place))
  run.work.restart('adapt', 'mark')
  return run


def counted(monkeypatch):
  """Counts how often the network is traced or called."""
  calls, apply = [], ConditionalDenoiser.__call__
  monkeypatch.setattr(
    ConditionalDenoiser,
    '__call__',
    lambda *inputs, **named: calls.append(1) or apply(*inputs, **named),
  )
  return calls


def test_the_searches_that_see_the_target_are_compiled_once_and_mark_its_patients(
  unspent, tmp_path, monkeypatch
):
  config = searching('loss', **{'adapt.privacy': None})
  run = begun(unspent, tmp_path / 'work', config)
  work, calls = run.work, counted(monkeypatch)
  drift = drift_search.find(run)
  assert len(calls) == 1, 'one trace serves the grid and all patients'
  found = work.read_json(*drift_setting.FOUND)
  assert found['internal'] and found['grid'] == list(GRID)
  best = GRID[int(np.argmin(found['loss_difference']))]
  assert found['value'] == best == (drift.value if drift else 0.0)
  statement = work.read_json('privacy.json')
  assert statement['epsilon'] == 'inf', 'the search used patients without noise'
  assert work.path('checkpoints', 'adapt', 'drift.png').read_bytes()[1:4] == b'PNG'
  # What was found is kept, for a resumed run and for sampling.
  calls.clear()
  again = drift_search.find(run)
  assert not calls and (again.value if again else 0.0) == best
  sampled = drift_setting.in_sampling(config, work)
  assert (sampled.value if sampled else 0.0) == best


def test_grid_and_closed_form_ask_the_network_as_sampling_will(
  unspent, tmp_path, monkeypatch
):
  config = searching('grid', **{'adapt.privacy': None})
  run = begun(unspent, tmp_path / 'work', config)
  question = drift_search.network(run)
  target = drift_search.cohort(run, run.splits['private'])
  calls = counted(monkeypatch)
  found = drift_search.grid(question, target)
  assert len(calls) <= 4, 'sampling, trial, and sampling after it, each traced once'
  assert len(found['distance_sampling']) == len(found['distance_training']) == 3
  assert found['distance_sampling'] != found['distance_training']
  assert found['value'] == GRID[int(np.argmin(found['distance_training']))]
  solved = drift_search.closed_form(question, target)
  expected = shift.closed_form(
    target[0].reshape(-1, 2).mean(0), solved['model_mean'], solved['gain'], 0.2
  )
  # Every phantom patient has as many volumes, so that means of means are the mean.
  np.testing.assert_allclose(solved['value'], expected, atol=1e-4)
  # Wherever the model itself lies, no drift is needed.
  none = drift_search.solve(
    question, target[0].shape[1:], target[1], solved['model_mean']
  )
  np.testing.assert_allclose(none['value'], 0, atol=1e-9)


@pytest.mark.parametrize('search', private_releases.DRIFT_NAMES)
def test_a_private_search_is_one_recorded_release_computed_once(
  search, unspent, tmp_path, monkeypatch
):
  config = searching(search)
  run = begun(unspent, tmp_path / 'work', config)
  work, book = run.work, run.ledger
  question = drift_search.network(run)
  monkeypatch.setattr(drift_search, 'network', lambda *_: question)  # compiled once

  def killed(*args):
    assert len(book.releases()) == 2, 'computed before both releases were recorded'
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(releases, 'private_parts', killed)
    with pytest.raises(KeyboardInterrupt):
      drift_search.find(run)
  recorded = book.releases()
  assert work.read_json(*drift_setting.FOUND) is None
  drift_search.find(run)
  assert book.releases() == recorded, 'a resumed run recorded another release'
  first = work.read_json(*drift_setting.FOUND)
  events = [accounting.event(entry) for entry in recorded]
  total = accounting.epsilon(events, config.adapt.privacy.delta)['pld']
  assert 9.9 < total <= config.adapt.privacy.epsilon
  spent = accounting.epsilon(events[:1], config.adapt.privacy.delta)['pld']
  assert 0.49 < spent <= config.adapt.drift.epsilon
  assert 'internal' not in first

  # Killed before the value was kept: the same noise, the same numbers.
  kept = work.read_json(*private_releases.DRIFT)
  work.path(*drift_setting.FOUND).unlink()
  work.path(*private_releases.DRIFT).unlink()
  monkeypatch.setattr(drift_search, 'solve', lambda *_: {'value': 0.0})
  drift_search.find(run)
  assert work.read_json(*private_releases.DRIFT) == kept

  # Another run with the same question takes the kept numbers and spends on training.
  work.restart('adapt', 'another mark')
  assert work.read_json(*drift_setting.FOUND) is None
  wanted = private_releases.wanted_drift(run, 'another run')
  assert wanted['id'] not in {entry['id'] for entry in recorded}
  assert private_releases.planned(run, 'another run') == []
  # Another question is another release.
  other = Run(searching(search, **{'adapt.drift.clip_norm': 0.7}), work)
  assert len(private_releases.planned(other, 'another run')) == 1
  with pytest.raises(ValueError, match='not recorded'):
    private_releases.publish_once(
      other,
      private_releases.wanted_drift(other, 'another run'),
      private_releases.DRIFT,
      secret_key.new_noise_key(0),
      lambda key: pytest.fail('computed without being recorded'),
    )


def test_the_losses_of_a_patient_know_no_other_patient(unspent, tmp_path):
  config = searching('private_loss')
  run = begun(unspent, tmp_path / 'work', config)
  question = drift_search.network(run)
  examples, names = drift_search.cohort(run, run.splits['private'])[2:]
  whole, rest = question.losses(names, examples), [5, 3, 1]
  names = [names[index] for index in rest]
  fewer = {name: leaf[rest] for name, leaf in examples.items()}
  # Another patient with more volumes: all others are filled up with absent ones.
  fill = lambda leaf: np.concatenate([leaf, np.zeros_like(leaf)], 1)
  fewer = {name: fill(leaf) for name, leaf in fewer.items()}
  np.testing.assert_allclose(question.losses(names, fewer), whole[rest], rtol=1e-5)


def test_private_patients_are_not_searched_without_noise_under_privacy(
  unspent, tmp_path
):
  for config in (
    searching('loss'),
    searching('private_mean', **{'adapt.privacy': None}),
  ):
    run = begun(unspent, tmp_path / config.adapt.drift.search, config)
    with pytest.raises(ValueError, match=r'private_mean.*private_loss'):
      drift_search.find(run)
    assert run.ledger.releases() == []


def test_a_drift_of_sampling_alone_trains_nothing_anew(tmp_path):
  work = WorkFolder(tmp_path)
  mark = lambda name, **flags: runner.planned(name, Run(asked(**flags), work))
  for name in ('prepare', 'autoencoder', 'encode', 'diffusion', 'adapt', 'sample'):
    work.restart(name, mark(name) or 'prepared')
    work.finish(name, mark(name) or 'prepared')
  anew = lambda name, **flags: runner.will_start_anew(name, Run(asked(**flags), work))
  assert not anew('adapt') and not anew('sample')
  assert not anew('adapt', **{'adapt.drift.sampling': False})
  assert anew('sample', **{'adapt.drift.sampling': False})
  assert anew('adapt', **{'adapt.drift.value': 0.1})
  # A drift that is not trained with may take any value, unless it is searched for.
  aside = {'adapt.drift.training': False, 'adapt.drift.value': 0.1}
  assert mark('adapt', **aside) == mark('adapt', **{**aside, 'adapt.drift.value': 0.2})
  searched = {**aside, 'adapt.drift.search': 'private_mean'}
  assert mark('adapt', **searched) != mark('adapt', **aside)
