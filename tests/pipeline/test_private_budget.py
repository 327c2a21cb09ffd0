"""Laws of the privacy budget: over work folders, runs and ledgers.

Only the planning of `adapt` runs here; one test trains, a model of a few numbers.
"""

import json
import types

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import pld

from ldm_jax.config import checks
from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.pipeline import fine_tune, preflight, private_budget
from ldm_jax.pipeline.run import Run
from ldm_jax.pipeline.starting_point import Start
from ldm_jax.privacy import private_choice
from ldm_jax.privacy.ledger import Ledger
from ldm_jax.report.privacy_statement import statement
from ldm_jax.workfolder import WorkFolder

PATIENTS = tuple(f'patient-{number}' for number in range(40))


@pytest.fixture
def plan(tmp_path):
  """(folder, flags, patients) -> the planned scheme, as `adapt` begins."""

  def plan(folder, flags=(), patients=PATIENTS, mark='a'):
    # A full batch: the accountants answer at once.
    flags = {'adapt.privacy.mechanism': 'full_batch', **dict(flags)}
    config = checks.check(override(defaults(), flags))
    run = opened(tmp_path / folder, config, patients)
    run.work.restart('adapt', mark)
    return private_budget.plan(run).scheme

  return plan


def opened(folder, config, patients=PATIENTS):
  """A Run on a folder whose private cohort has these patients."""
  run = Run(config, WorkFolder(folder))
  vars(run)['prepared'] = {
    'private': types.SimpleNamespace(
      num_patients=len(patients), patient_names=list(patients)
    )
  }
  return run


def stated(tmp_path, folder):
  return json.loads((tmp_path / folder / 'privacy.json').read_text())


def test_what_the_user_says_of_registry_and_data_set_is_an_assumption(plan, tmp_path):
  plan('plain', {'adapt.privacy.epsilon': '4'})
  named = {'ledger.registry': str(tmp_path / 'r'), 'ledger.dataset': 'site B'}
  plan('named', named)
  more = set(stated(tmp_path, 'named')['assumptions'])
  more -= set(stated(tmp_path, 'plain')['assumptions'])
  assert len(more) == 2 and any("'site B' (ledger.dataset)" in text for text in more)
  assert any('ledger.registry names' in text for text in more)


def test_a_further_run_of_a_choice_begins_although_the_release_is_recorded(tmp_path):
  """Looking for its last state left a folder, by which it seemed to have begun."""
  flags = {
    'adapt.privacy.mechanism': 'full_batch',
    'adapt.privacy.best_of': '3',
    'adapt.privacy.choice': 'abc',
    'ledger.path': str(tmp_path / 'cohort.jsonl'),
  }
  config = checks.check(override(defaults(), flags))
  start = Start(None, {'w': jnp.zeros(2)}, {}, {}, {})
  for folder in ('one', 'two'):
    run = opened(tmp_path / folder, config)
    run.work.restart('adapt', 'a')
    assert fine_tune.taken(run, start) is None
    private_budget.plan(run)
  assert len(run.ledger.releases()) == 1


def shared(tmp_path, epsilon, total):
  return {
    'ledger.path': str(tmp_path / 'cohort.jsonl'),
    'ledger.total_epsilon': str(total),
    'adapt.privacy.epsilon': str(epsilon),
  }


def test_two_work_folders_on_the_same_patients_add_up(plan, tmp_path):
  flags = shared(tmp_path, 2, 3.5)
  first, second = plan('one', flags), plan('two', flags)
  assert first == second, 'each run spends its own part'
  one, two = stated(tmp_path, 'one'), stated(tmp_path, 'two')
  assert 1.99 < one['epsilon'] <= 2
  assert 2.5 < two['epsilon'] <= 3.5
  assert len(two['releases']) == 2
  assert all(1.99 < release['epsilon'] <= 2 for release in two['releases'])
  assert not list(tmp_path.glob('*/store/ledger-private.jsonl'))


def test_two_work_folders_with_default_ledgers_share_one_budget(tmp_path):
  """Of real patients, also where one alone is in both; a phantom's are made up."""
  flags = {'adapt.privacy.mechanism': 'full_batch', 'data.private.layout': 'folder'}

  def begin(folder, patients, **more):
    config = override(defaults(), {**flags, **more})
    run = opened(tmp_path / folder, config, patients)
    run.work.restart('adapt', 'a')
    return private_budget.plan(run)

  begin('one', PATIENTS)
  for folder, patients in (('two', PATIENTS), ('three', (PATIENTS[0], 'else'))):
    with pytest.raises(ValueError, match=r'nothing is left.*other work folders'):
      begin(folder, patients)
  begin('four', ('somebody', 'else'))
  raised = {'ledger.total_epsilon': '30', 'adapt.privacy.epsilon': '10'}
  begin('two', PATIENTS, **raised)
  made = stated(tmp_path, 'two')
  assert len(made['releases']) == 2 and made['epsilon'] > 11
  assert [bool(each.get('elsewhere')) for each in made['releases']] == [False, True]
  begin('two', PATIENTS, **raised)  # resumes: what was stated is still there
  phantom = {'data.private.layout': 'phantom_cardiac'}
  first, again = (begin(folder, PATIENTS, **phantom) for folder in ('five', 'six'))
  assert first.scheme == again.scheme


def test_the_total_stops_the_run_that_would_exceed_it(plan, tmp_path):
  flags = shared(tmp_path, 2, 3.0)
  plan('one', flags), plan('two', flags)
  before = (tmp_path / 'cohort.jsonl').read_bytes()
  with pytest.raises(ValueError, match=r'total allowed is 3.*spent.*total_epsilon'):
    plan('three', flags)
  assert (tmp_path / 'cohort.jsonl').read_bytes() == before
  smaller = plan('three', shared(tmp_path, 0.3, 3.0))
  assert smaller.noise_multiplier > 3
  assert stated(tmp_path, 'three')['epsilon'] <= 3


def test_the_total_is_checked_before_the_stages_that_come_first(plan, tmp_path):
  flags = {**shared(tmp_path, 2, 3.0), 'adapt.privacy.mechanism': 'full_batch'}
  flags['data.private.layout'] = 'phantom_cardiac'
  config = checks.check(override(defaults(), flags))
  for folder in ('one', 'two'):
    plan(folder, flags)
  with pytest.raises(ValueError, match=r"'this run'.*total allowed is 3"):
    preflight.check_budget(opened(tmp_path / 'three', config))


def test_without_a_total_the_epsilon_of_a_run_is_the_total(plan, tmp_path):
  path = {'ledger.path': str(tmp_path / 'cohort.jsonl')}
  plan('one', {**path, 'adapt.privacy.epsilon': '1'})
  later = plan('two', {**path, 'adapt.privacy.epsilon': '2'})
  alone = plan('three', {'adapt.privacy.epsilon': '2'})
  assert later.noise_multiplier > alone.noise_multiplier
  assert 1.99 < stated(tmp_path, 'two')['epsilon'] <= 2
  with pytest.raises(ValueError, match='nothing is left'):
    plan('four', {**path, 'adapt.privacy.epsilon': '2'})


def test_a_resumed_run_adds_nothing_and_a_new_one_does(plan, tmp_path):
  flags = shared(tmp_path, 1, 9)
  book = Ledger(tmp_path / 'cohort.jsonl')
  assert plan('one', flags) == plan('one', flags)
  assert len(book.releases()) == 1
  plan('one', flags, mark='changed inputs')
  assert len(book.releases()) == 2


def test_a_recorded_run_whose_key_is_gone_is_not_begun_again(plan, tmp_path):
  """With another key it would be a second release that no line of the ledger holds."""
  plan('one')
  flags = {'adapt.privacy.mechanism': 'full_batch', 'ledger.total_epsilon': '99'}
  run = opened(tmp_path / 'one', checks.check(override(defaults(), flags)))
  run.work.restart('adapt', 'a')
  (run.work.checkpoints('adapt') / 'noise_key').unlink()
  with pytest.raises(ValueError, match=r'noise key.*is gone.*releasing a step twice'):
    private_budget.plan(run)
  run.work.restart('adapt', 'another')
  first, again = (private_budget.plan(run).secret_key for _ in range(2))
  assert jax.random.key_data(first).tolist() == jax.random.key_data(again).tolist()
  assert (run.work.checkpoints('adapt') / 'noise_key').is_file()


def test_a_ledger_of_other_patients_is_refused_unless_asked_for(plan, tmp_path):
  flags = shared(tmp_path, 1, 9)
  plan('one', flags)
  grown = (*PATIENTS, 'one more')
  with pytest.raises(ValueError, match=r'other patients.*any_cohort'):
    plan('two', flags, grown)
  plan('two', {**flags, 'ledger.any_cohort': 'True'}, grown)
  assert len(Ledger(tmp_path / 'cohort.jsonl').releases()) == 2


def test_releases_beside_the_store_are_not_forgotten_for_a_shared_ledger(
  plan, tmp_path
):
  plan('one')
  with pytest.raises(ValueError, match=r'1 releases.*forgotten.*copy'):
    plan('one', shared(tmp_path, 1, 99), mark='again')
  own = tmp_path / 'one' / 'store' / 'ledger-private.jsonl'
  (tmp_path / 'cohort.jsonl').write_bytes(own.read_bytes())
  plan('one', shared(tmp_path, 1, 99), mark='again')
  assert len(Ledger(tmp_path / 'cohort.jsonl').releases()) == 2


def test_a_ledger_that_lacks_what_was_stated_is_refused(plan, tmp_path):
  plan('one', shared(tmp_path, 1, 99))
  for forget in ({}, {'ledger.path': str(tmp_path / 'another.jsonl')}):
    with pytest.raises(ValueError, match=r'lists 1 releases.*only 0.*ledger\.path'):
      plan('one', forget, mark='again')


def test_an_unprotected_run_spends_the_shared_ledger_for_good(plan, tmp_path):
  flags = shared(tmp_path, 1, 9)
  plan('one', flags)
  config = checks.check(override(defaults(), {**flags, 'adapt.privacy': None}))
  run = opened(tmp_path / 'two', config)
  run.work.restart('adapt', 'a')
  assert private_budget.plan(run) is None
  assert stated(tmp_path, 'two')['epsilon'] == 'inf'
  with pytest.raises(ValueError, match='without noise'):
    plan('three', flags)


def test_no_later_run_launders_two_with_a_fixed_seed(plan, tmp_path):
  flags = {'ledger.total_epsilon': '20', 'adapt.privacy.epsilon': '5'}
  for mark, seed in (('a', '0'), ('b', '0'), ('c', 'None')):
    plan('one', {**flags, 'adapt.privacy.seed': seed}, mark=mark)
    made = stated(tmp_path, 'one')
    assert made['private'] is False and made['demonstration_only'] is True
    assert 5 * 0.99 < made['epsilon'] < 20 and made['epsilon_guaranteed'] == 'inf'
    assert 'FIXED SEED' in made['randomness']
    assert not statement(made).private
  origins = [release['randomness'] for release in made['releases']]
  assert origins == ['fixed seed', 'fixed seed', 'operating system']
  plan('two', {**flags, 'adapt.privacy.seed': 'None'})
  assert stated(tmp_path, 'two')['private'] is True


def test_the_generator_is_in_the_ledger_and_in_the_statement(plan, tmp_path):
  pytest.importorskip('cryptography')
  scheme = plan('one', {'adapt.privacy.generator': 'chacha20'})
  assert scheme == plan('two')  # the accounting is the same
  for folder, named in (('one', 'chacha20'), ('two', None)):
    (found,) = stated(tmp_path, folder)['releases']
    assert found.get('generator') == named
    lines = (tmp_path / folder / 'store' / 'ledger-private.jsonl').read_text()
    assert ('chacha20' in lines) == (named is not None)
  assert '256-bit key' in stated(tmp_path, 'one')['randomness']
  assert '64-bit key' in stated(tmp_path, 'two')['randomness']
  plan('one', {'adapt.privacy.generator': 'chacha20'})  # a resumed run adds nothing
  assert len(stated(tmp_path, 'one')['releases']) == 1


CHOICE = {'adapt.privacy.best_of': '5', 'adapt.privacy.choice': 'c0'}


def test_the_runs_of_a_private_choice_are_one_release_and_one_may_be_seen(
  plan, tmp_path
):
  """The attack: several runs are shown under the name of one choice."""
  flags = {**CHOICE, 'ledger.path': str(tmp_path / 'cohort.jsonl')}
  schemes = [
    plan(name, {**flags, 'adapt.learning_rate': rate})
    for name, rate in (('one', '1e-3'), ('two', '2e-3'), ('three', '1e-3'))
  ]
  assert len(set(map(str, schemes))) == 1
  ledger = Ledger(tmp_path / 'cohort.jsonl')
  (made,) = ledger.releases()
  assert made['mechanism'] == 'best_of_gaussian' and made['best_of'] == 5
  assert 9.9 < ledger.epsilon(1e-5)['rdp'] <= 10
  assert not stated(tmp_path, 'one')['private']
  config = checks.check(
    override(defaults(), {**flags, 'adapt.privacy.mechanism': 'full_batch'})
  )
  one, two = (opened(tmp_path / name, config) for name in ('one', 'two'))
  for run in (one, two):
    run.work.restart('adapt', 'a')
  private_choice.decide(ledger.path, 'c0', two.own_name)
  for run, is_private in ((one, False), (two, True)):
    private_budget.write_statement(run)
    made = stated(tmp_path, run.work.root.name)
    assert made['private'] is is_private
    assert made['epsilon'] == pytest.approx(10, rel=1e-3)
  for folder in ('one', 'four'):
    with pytest.raises(ValueError, match='has been made'):
      plan(folder, flags)
  with pytest.raises(ValueError, match='nothing is left'):
    plan('five', {'ledger.path': flags['ledger.path']})


def test_the_keys_of_a_choice_are_made_as_the_ledger_says(plan, tmp_path):
  flags = {**CHOICE, 'ledger.path': str(tmp_path / 'cohort.jsonl')}
  plan('one', flags)
  with pytest.raises(ValueError, match='Set the seed back'):
    plan('two', {**flags, 'adapt.privacy.seed': '0'})
  with pytest.raises(ValueError, match='config now asks for'):
    plan('two', {**flags, 'adapt.steps': '7'})


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'adapt.privacy.best_of': '5'}, 'best_of'),
    ({'adapt.privacy.choice': 'a'}, 'best_of'),
    ({**CHOICE, 'adapt.privacy.best_of': '0.5'}, 'best_of'),
    ({**CHOICE, 'adapt.privacy.choice': '../a'}, 'choice'),
    ({**CHOICE, 'adapt.privacy.log_internal': 'True'}, 'log_internal'),
    ({**CHOICE, 'adapt.privacy.releases.attributes.epsilon': '1'}, 'attributes'),
    ({**CHOICE, 'adapt.drift.search': 'private_mean'}, 'drift'),
    (
      {
        **CHOICE,
        'adapt.privacy.mechanism': 'banded',
        'adapt.privacy.num_bands': '2',
      },
      'mechanism',
    ),
  ],
)
def test_what_a_private_choice_does_not_cover_is_refused(flags, key):
  with pytest.raises(ValueError, match=key):
    checks.check(override(defaults(), flags))


def test_a_fixed_key_that_made_nothing_is_not_used_by_a_run_without_a_seed(
  plan, tmp_path, monkeypatch
):
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(private_budget, 'calibrated', _killed)
    plan('one', {'adapt.privacy.seed': '0'})
  path = tmp_path / 'one' / 'checkpoints' / 'adapt.new' / 'noise_key'
  fixed = path.read_text()
  plan('one', {'adapt.privacy.seed': 'None'})
  assert path.read_text() != fixed
  assert stated(tmp_path, 'one')['private'] is True


def test_a_found_key_of_a_run_that_no_ledger_lists_is_not_trusted(plan, tmp_path):
  plan('one')
  (tmp_path / 'one' / 'privacy.json').unlink()
  (tmp_path / 'one' / 'store' / 'ledger-private.jsonl').unlink()
  (tmp_path / 'one' / 'checkpoints' / 'adapt.new' / 'state').mkdir()
  plan('one')
  made = stated(tmp_path, 'one')
  assert made['private'] is False and 'UNKNOWN KEY' in made['randomness']


def _killed(*args):
  raise KeyboardInterrupt


@pytest.mark.parametrize(
  ('flags', 'key'),
  [
    ({'ledger.total_epsilon': '0'}, 'ledger.total_epsilon'),
    ({'ledger.total_epsilon': '3'}, 'ledger.total_epsilon'),
    ({'adapt.privacy.mechanism': 'shuffle'}, 'adapt.privacy.mechanism'),
    ({'adapt.privacy.max_batch_size': '64'}, 'adapt.privacy.max_batch_size'),
    ({'adapt.privacy.num_bands': '2'}, 'adapt.privacy.num_bands'),
    (
      {'adapt.privacy.mechanism': 'truncated_poisson'},
      'adapt.privacy.max_batch_size',
    ),
    (
      {
        'adapt.privacy.mechanism': 'truncated_poisson',
        'adapt.privacy.max_batch_size': '8',
      },
      'adapt.privacy.max_batch_size',
    ),
    (
      {'adapt.privacy.mechanism': 'banded', 'adapt.privacy.num_bands': '101'},
      'adapt.privacy.num_bands',
    ),
  ],
)
def test_keys_that_do_not_go_together_are_refused_before_anything_runs(flags, key):
  with pytest.raises(ValueError, match=f'config.{key}'):
    checks.check(override(defaults(), flags))


def test_a_run_with_adaptive_clipping_spends_what_is_recorded(plan, tmp_path):
  """Planned, recorded, trained, stated; the bits cost nothing beside the noise."""
  asked = {
    'adapt.privacy.mechanism': 'poisson',
    'adapt.privacy.clipping': 'adaptive',
    'adapt.privacy.quantile': 0.7,
    'adapt.privacy.clip_norm': 0.01,
    'adapt.privacy.batch_size': 20,
    'adapt.steps': 12,
    'run.log_every': 1,
    'mesh.data': 1,
  }
  asked = {key: str(value) for key, value in asked.items()}
  scheme = plan('one', asked)
  run = opened(tmp_path / 'one', checks.check(override(defaults(), asked)))
  run.work.restart('adapt', 'b')  # as the stage begins: nothing is recorded of this run
  (tmp_path / 'one' / 'store' / 'ledger-private.jsonl').unlink()
  (tmp_path / 'one' / 'privacy.json').unlink()
  split = types.SimpleNamespace(
    num_patients=len(PATIENTS),
    patient_names=list(PATIENTS),
    patient_entries=[np.array([2 * i, 2 * i + 1]) for i in range(len(PATIENTS))],
    attributes=np.zeros((2 * len(PATIENTS), 1), np.float32),
  )
  run.prepared['private'] = split
  z = np.random.default_rng(0).normal(3, 1, (2 * len(PATIENTS), 2, 1))
  losses = lambda params, z, *_: jnp.square(z - params['w']).mean((1, 2))
  start = Start(losses, {'w': jnp.zeros(())}, {}, {}, {})
  planned = private_budget.plan(run)
  final = fine_tune.fit(run, split, z.astype(np.float32), start, planned)
  assert int(final.step) == 12
  # Every gradient is longer than C at first, so C grows, by at most its rate a step.
  assert 1.2 * 0.01 < float(final.clip_norm) < 0.01 * np.exp(0.2 * 0.7 * 12)
  (recorded,) = Ledger(tmp_path / 'one' / 'store' / 'ledger-private.jsonl').releases()
  made = stated(tmp_path, 'one')
  (release,) = made['releases']
  assert release['clipping'] == recorded['clipping'] == 'adaptive'
  assert release['noise_multiplier'] == scheme.noise_multiplier
  assert release['sampling_probability'] == 0.5 and release['steps'] == 12
  by_hand = pld.PLDAccountant()
  noise = dp_accounting.GaussianDpEvent(release['noise_multiplier'])
  by_hand.compose(dp_accounting.PoissonSampledDpEvent(0.5, noise), 12)
  assert made['epsilon'] == pytest.approx(by_hand.get_epsilon(1e-5), rel=2e-3)
  assert 9.9 < made['epsilon'] <= 10


def test_the_statement_says_destroyed_of_the_key_only_when_it_was(plan, tmp_path):
  plan('one')
  assert 'destroyed' not in stated(tmp_path, 'one')['randomness']
  flags = {'adapt.privacy.mechanism': 'full_batch'}
  run = opened(tmp_path / 'one', checks.check(override(defaults(), flags)))
  run.work.restart('adapt', 'a')
  private_budget.finish(run)
  for _ in range(2):  # it keeps saying so
    assert 'was destroyed' in stated(tmp_path, 'one')['randomness']
    private_budget.write_statement(run)
