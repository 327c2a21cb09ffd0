"""launch/sweep.py: what its arms share, what they never share, and its table."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from ldm_jax import stages
from ldm_jax.commands import arm_folders
from ldm_jax.config import ablations, checks, parsing
from ldm_jax.pipeline import runner
from ldm_jax.pipeline.run import Run
from ldm_jax.report import sweep_table
from ldm_jax.workfolder import WorkFolder

REAL_RUN = subprocess.run
PATH = pathlib.Path(__file__).resolve().parent.parent / 'launch' / 'sweep.py'
SPEC = importlib.util.spec_from_file_location('sweep', PATH)
sweep = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(sweep)

CONFIG = """
from ldm_jax.config.defaults import defaults

def get_config(arg=''):
  config = defaults()
  config.data.private.layout = arg or 'folder'
  return config

def sweep():
  return [{'adapt.init': 'scratch'}, {'adapt.privacy': None}]
"""
# Stands for ldm_jax.main: each arm adds one line to the ledger it is given.
RUN = """
import json, pathlib, sys
words = dict(word.lstrip('-').split('=', 1) for word in sys.argv[1:])
work = pathlib.Path(words['workdir'])
for folder in ('store', 'checkpoints/prepare', 'checkpoints/autoencoder',
               'checkpoints/encode', 'checkpoints/diffusion'):
  (work / folder).mkdir(parents=True, exist_ok=True)
(work / 'store' / 'volume.npz').touch()
tuned = work / 'checkpoints' / 'adapt' / 'done.json'
was_given = tuned.exists() and tuned.read_text() != work.name
if 'stages' not in words and not was_given:
  tuned.parent.mkdir(parents=True, exist_ok=True)
  tuned.write_text(work.name)
  (work / 'privacy.json').write_text('{"epsilon": 1.0}')
  own = work / 'store' / 'ledger-private.jsonl'
  with open(words.get('config.ledger.path', own), 'a') as file:
    file.write(work.name + chr(10))
if 'stages' not in words:
  (work / 'metrics.json').write_text(json.dumps(METRICS))
  network = work / 'checkpoints' / 'measurement'
  if not network.exists():
    network.mkdir()
    (network / 'done.json').write_text(work.name)
"""
METRICS = {
  'frechet': {'value': 2.5, 'low': 2.0, 'high': 3.0, 'n_real': 8, 'internal': True},
  'control': {'LV': {'pearson_r': 0.9, 'pearson_r_low': 0.8, 'pearson_r_high': 0.95}},
  'baseline_real_real': None,
}


@pytest.fixture
def config(tmp_path, monkeypatch):
  """A config with two arms, run by a stand-in for the pipeline."""
  (tmp_path / 'run.py').write_text(f'METRICS = {METRICS}\n{RUN}')
  (tmp_path / 'config.py').write_text(CONFIG)
  real = sweep.subprocess.run

  def run(command, check, **streams):
    command = [command[0], tmp_path / 'run.py', *command[3:]]
    return real(command, check=check, **streams)

  monkeypatch.setattr(sweep.subprocess, 'run', run)
  return str(tmp_path / 'config.py')


ARMS = ['adapt.init=scratch', 'adapt.privacy=None']
# Both train privately, so that each is a release.
PRIVATE = CONFIG.replace("{'adapt.privacy': None}", "{'adapt.seed': 2}")


def test_on_real_patients_all_arms_share_one_ledger(config, tmp_path):
  for count in (1, 2):  # a sweep that runs again finds what the first one spent
    assert sweep.main([config, str(tmp_path / 'w')]) == 0
    assert (tmp_path / 'w' / arm_folders.LEDGER).read_text().split() == count * ARMS
  assert not list((tmp_path / 'w').glob(f'*/store/{arm_folders.LEDGER}'))


def test_on_phantoms_each_arm_begins_a_ledger(config, tmp_path):
  assert sweep.main([f'{config}:phantom_cardiac', str(tmp_path / 'w')]) == 0
  for arm in ARMS:
    assert (
      tmp_path / 'w' / arm / 'store' / arm_folders.LEDGER
    ).read_text().split() == [arm]
  assert not (tmp_path / 'w' / arm_folders.LEDGER).exists()


def test_arms_add_up_in_the_ledger_that_the_user_names(config, tmp_path):
  shared = tmp_path / 'mine.jsonl'
  flag = f'--config.ledger.path={shared}'
  for spec in (config, f'{config}:phantom_cardiac'):
    assert sweep.main([spec, str(tmp_path / spec[-5:]), flag]) == 0
  assert shared.read_text().split() == 2 * ARMS


def test_ledgers_of_single_arms_are_not_forgotten(config, tmp_path, capsys):
  (tmp_path / 'a' / 'store').mkdir(parents=True)
  (tmp_path / 'a' / 'store' / arm_folders.LEDGER).write_text('a\n')
  assert sweep.main([config, str(tmp_path)]) == 2
  assert 'would forget them' in capsys.readouterr().err
  (tmp_path / arm_folders.LEDGER).write_text('a\n')
  assert sweep.shared_ledger(tmp_path) == tmp_path / arm_folders.LEDGER


def test_a_sweep_that_is_stopped_leaves_the_table_of_its_finished_arms(
  config, tmp_path, monkeypatch
):
  whole = sweep.run

  def run(spec, workdir, *rest):
    if workdir.name == ARMS[1]:
      raise sweep.subprocess.CalledProcessError(7, ['arm'])
    whole(spec, workdir, *rest)

  monkeypatch.setattr(sweep, 'run', run)
  assert sweep.main([config, str(tmp_path / 'w')]) == 7
  text = (tmp_path / 'w' / 'sweep.md').read_text()
  assert f'| {ARMS[0]} | 1 |' in text and ARMS[1] not in text
  assert '1 of 2 arms have been run' in text


def test_the_measuring_network_is_learned_by_the_first_arm_only(config, tmp_path):
  assert sweep.main([config, str(tmp_path / 'w')]) == 0
  learned = {
    path.parents[2].name: path.read_text()
    for path in tmp_path.glob('w/*/checkpoints/measurement/done.json')
  }
  assert set(learned) == {'base', 'adapt.init=scratch', 'adapt.privacy=None'}
  assert set(learned.values()) == {'adapt.init=scratch'}


def test_arms_that_only_sample_otherwise_share_one_fine_tuning_and_one_release(
  config, tmp_path
):
  text = CONFIG.replace(
    "'adapt.init': 'scratch'}, {'adapt.privacy': None",
    "'adapt.seed': 1}, {'adapt.seed': 1, 'sample.seed': 1}, {'adapt.seed': 2",
  )
  pathlib.Path(config).write_text(text)
  assert sweep.main([f'{config}:phantom_cardiac', str(tmp_path / 'w')]) == 0
  first, second = 'adapt.seed=1', 'adapt.seed=1,sample.seed=1'
  tuned = {
    path.parents[2].name: path.read_text()
    for path in tmp_path.glob('w/*/checkpoints/adapt/done.json')
  }
  assert tuned == {first: first, second: first, 'adapt.seed=2': 'adapt.seed=2'}
  for arm, spent in ((first, [first]), (second, [first]), ('adapt.seed=2', None)):
    ledger = (tmp_path / 'w' / arm / 'store' / arm_folders.LEDGER).read_text().split()
    assert ledger == (spent or [arm])
    assert (tmp_path / 'w' / arm / 'privacy.json').is_file()


def test_a_fine_tuning_that_an_arm_was_given_is_up_to_date_there(tmp_path, finished):
  """What the sweep takes for the same fine-tuning, the pipeline does, too."""
  config, first = parsing.load(str(PATH.parent.parent / 'tests' / 'micro.py')), finished
  arm = tmp_path / 'arm'
  sweep.share(first, arm)
  sweep.give_adapted(first, arm)
  changed = {'sample.ema_decay': 0.9, 'sample.seed': 3, 'evaluate.num_bootstrap': 0}
  later = parsing.override(config, changed)
  work = WorkFolder(arm)
  assert not runner.will_start_anew('adapt', Run(later, work))
  assert work.finished('adapt') == WorkFolder(first).finished('adapt')
  assert Run(later, work).ledger.releases()
  for override in ({'adapt.seed': 1}, {'adapt.privacy.epsilon': 5.0}):
    other = parsing.override(config, override)
    assert runner.will_start_anew('adapt', Run(other, work))
    assert sweep.fine_tuning(override) != sweep.fine_tuning({})
  assert sweep.fine_tuning(changed) == sweep.fine_tuning({})


def test_on_patients_arms_stand_alone_only_where_that_is_asked_for(
  config, tmp_path, capsys
):
  assert sweep.main([config, str(tmp_path / 'w'), '--each_arm_alone']) == 0
  for arm in ARMS:
    assert (
      tmp_path / 'w' / arm / 'store' / arm_folders.LEDGER
    ).read_text().split() == [arm]
  assert 'epsilons of all arms add up' in (tmp_path / 'w' / 'sweep.md').read_text()


def test_the_arms_against_noise_repeat_nothing_before_adapt():
  for overrides in ablations.lower_noise(1e-3).values():
    assert all(
      key.startswith(('adapt.', *arm_folders.AFTER_ADAPT)) for key in overrides
    )


def test_the_arms_against_noise_differ_from_their_partner_in_one_thing():
  arms = ablations.lower_noise(1e-3, num_bands=4)
  changed = {}
  for name, overrides in arms.items():
    partner = sweep_table.partner(name)
    if partner != name:
      keys = {key for key in overrides if overrides[key] != arms[partner].get(key)}
      changed[name] = keys
  alone = len(ablations.EPSILONS) + 1  # plain, and the pre-trained
  assert len(arms) - len(changed) == alone * len(ablations.SEEDS)
  before, plain = arms['pre-trained,seed=2'], arms['plain,epsilon=1,seed=2']
  assert sweep.fine_tuning(before) == sweep.fine_tuning(plain)
  assert changed['plain+multiplicity+ema,epsilon=3,seed=1'] == {'sample.ema_decay'}
  assert all(keys for keys in changed.values())


def test_a_drift_is_searched_for_once_unless_it_is_a_private_release(tmp_path):
  search = {'adapt.privacy': None, 'adapt.drift.search': 'closed_form'}
  found = tmp_path / arm_folders.DRIFT
  found.parent.mkdir(parents=True)
  found.write_text(json.dumps({'value': [0.1, -0.2]}))
  drifts = {}
  assert sweep.with_found_drift(search, drifts) == search
  sweep.keep_drift(tmp_path, search, drifts)
  later = sweep.with_found_drift({**search, 'adapt.method': 'lora'}, drifts)
  assert later['adapt.drift.value'] == (0.1, -0.2)
  assert later['adapt.drift.search'] == ''
  # Another search, or one under privacy, is made anew.
  other = {'adapt.privacy': None, 'adapt.drift.search': 'loss'}
  private = {'adapt.drift.search': 'private_mean'}
  sweep.keep_drift(tmp_path, private, drifts)
  for overrides in (other, private, {}):
    assert sweep.with_found_drift(overrides, drifts) == overrides


def test_arms_with_and_without_drift_differ_in_the_drift_alone():
  arms = ablations.drift({'full': (60, 2e-4), 'dreambooth': (30, 1e-4)})
  for name in ('none', 'full', 'dreambooth'):
    for seed in ablations.SEEDS:
      plain = arms[f'{name},seed={seed}']
      drifted = arms[f'{name}+drift,seed={seed}']
      more = dict(drifted.items() - plain.items())
      assert plain.items() <= drifted.items()
      assert more and all(key.startswith('adapt.drift.') for key in more)
  assert len(arms) == 2 * 3 * len(ablations.SEEDS)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (CONFIG.replace('def sweep', 'def other'), 'sweep()'),
    (CONFIG.replace('adapt.init', 'adapt.innit'), 'adapt.init'),
  ],
)
def test_a_bad_config_is_found_before_the_first_run(
  config, tmp_path, capsys, text, message
):
  pathlib.Path(config).write_text(text)
  assert sweep.main([config, str(tmp_path / 'w')]) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'w').exists()


def test_arms_that_stand_alone_say_so_in_their_statements(
  config, tmp_path, capsys, monkeypatch
):
  """Their statements claim nothing: see ledger.registry."""
  monkeypatch.setenv('DRY_RUN', '1')
  for words, alone in ((('--each_arm_alone',), True), ((), False)):
    assert sweep.main([config, str(tmp_path / 'w'), *words]) == 0
    printed = capsys.readouterr().out
    assert ('--config.ledger.registry=none' in printed) == alone


SCORED = """
import json, os, pathlib, sys
words = dict(word.lstrip('-').split('=', 1) for word in sys.argv[1:])
work = pathlib.Path(words['workdir'])
adapt = work / 'checkpoints' / 'adapt'
folders = ('prepare', 'autoencoder', 'encode', 'diffusion', 'adapt')
for folder in ('store', *(f'checkpoints/{name}' for name in folders)):
  (work / folder).mkdir(parents=True, exist_ok=True)
if 'config.adapt.privacy.choice' in words and work.name != 'chosen':
  if os.environ.get('FAILS'):
    sys.exit(7)
  (work / 'log.jsonl').write_text('{"time": 5, "stage": "adapt"}' + chr(10) + '{"ti')
  (work / 'tensorboard').mkdir()
  (work / 'mean.txt').write_text(words['config.adapt.privacy.best_of'])
  (adapt / 'started.json').write_text(json.dumps({'run': work.name}))
  rate = float(words['config.adapt.learning_rate'])
  score = {'value': rate, 'internal': INTERNAL}
  (work / 'metrics.json').write_text(json.dumps({'score': score}))
  with open(work.parents[1] / 'seen.txt', 'a') as file:
    file.write(words['config.adapt.privacy.choice'] + chr(10))
  print('printed by a run')
"""


@pytest.fixture
def choice(config, tmp_path, monkeypatch):
  """(words, internal=False) -> exit status of a choice among three arms, three runs."""
  text = CONFIG.replace("'adapt.init': 'scratch'}, {'adapt.privacy': None", 'ARMS')
  rates = (1e-3, 3e-3, 2e-3)
  arms = ', '.join(f"{{'adapt.learning_rate': {rate}}}" for rate in rates)
  pathlib.Path(config).write_text(text.replace('{ARMS}', arms))
  names = [f'adapt.learning_rate={rate}' for rate in rates]
  draw = lambda arms, mean: names
  monkeypatch.setattr(sweep.choose_arm.private_choice, 'draw_arms', draw)

  def run(*words, internal=False):
    text = SCORED.replace('INTERNAL', str(internal))
    (tmp_path / 'run.py').write_text(text)
    return sweep.main([config, str(tmp_path / 'w'), '--best_of=3', *words])

  return run


def test_of_a_private_choice_the_best_run_alone_is_left(choice, tmp_path, capfd):
  assert choice('--score=score') == 0
  root = tmp_path / 'w'
  assert json.loads((root / 'chosen' / 'metrics.json').read_text())['score'] == {
    'value': 3e-3,
    'internal': False,
  }
  names = (root / 'seen.txt').read_text().split()
  assert len(names) == 3 and len(set(names)) == 1, 'the runs share one release'
  decided = sweep.choose_arm.private_choice.decided(root / arm_folders.LEDGER, names[0])
  begun = root / 'chosen' / arm_folders.ADAPTED / 'started.json'
  assert json.loads(begun.read_text())['run'] == decided
  assert {path.name for path in root.iterdir() if path.is_dir()} == {'base', 'chosen'}
  printed = capfd.readouterr().out
  assert 'printed by a run' not in printed and printed.count('ldm_jax.main') == 2
  assert choice('--score=score') == 2  # a further choice is a further release


def test_nothing_that_is_left_or_said_tells_how_many_runs_of_a_choice_there_were(
  choice, tmp_path, capfd, monkeypatch
):
  with monkeypatch.context() as patch:
    patch.setenv('FAILS', '1')
    assert choice('--score=score') == 7
  printed = ''.join(capfd.readouterr())
  assert 'learning_rate' not in printed, 'it tells an arm that was drawn'
  assert 'a run of the private choice failed' in printed
  assert choice('--score=score') == 0
  # Times of the chosen run would lie before and after those of the others.
  chosen = tmp_path / 'w' / 'chosen'
  assert (chosen / 'log.jsonl').read_text() == '{"stage": "adapt"}\n'
  assert not (chosen / 'tensorboard').exists()


def test_curves_of_a_choice_are_sent_nowhere(choice, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(checks.run.wandb_board, 'check', lambda project: None)
  assert choice('--score=score', '--config.run.wandb=board') == 2
  assert 'run.wandb' in capsys.readouterr().err
  assert not (tmp_path / 'w').exists()


def test_the_ledger_gets_the_mean_that_the_runs_of_a_choice_were_drawn_with(
  choice, tmp_path
):
  assert choice('--score=score', '--best_of=10.0000049') == 0
  told = float((tmp_path / 'w' / 'chosen' / 'mean.txt').read_text())
  assert told == 10.0000049


def test_the_least_score_may_be_the_best(choice, tmp_path):
  assert choice('--score=-score') == 0
  assert '0.001' in (tmp_path / 'w' / 'chosen' / 'metrics.json').read_text()


def test_a_choice_that_was_cut_goes_on_with_the_runs_that_were_drawn(
  choice, tmp_path, monkeypatch
):
  whole = sweep.run

  def cut(spec, workdir, *rest):
    if len(list((tmp_path / 'w').glob('seen.txt'))) and 'choice' in str(workdir):
      raise sweep.subprocess.CalledProcessError(7, ['arm'])
    whole(spec, workdir, *rest)

  with monkeypatch.context() as patch:
    patch.setattr(sweep, 'run', cut)
    assert choice('--score=score') == 7
  path = tmp_path / 'w' / 'choice' / sweep.choose_arm.FILE
  assert path.stat().st_mode & 0o777 == 0o600
  before = json.loads(path.read_text())
  assert before['done'] == 1
  assert choice('--score=score') == 0
  assert len((tmp_path / 'w' / 'seen.txt').read_text().split()) == 3
  assert (tmp_path / 'w' / 'seen.txt').read_text().split()[-1] == before['name']


def test_a_choice_by_what_reads_private_scans_is_refused(choice, capsys):
  assert choice('--score=score', internal=True) == 2
  assert 'not marked internal' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('override', 'words', 'message'),
  [
    ("'adapt.steps': 5", '--score=score', 'differ in adapt.steps'),
    ("'adapt.privacy.clip_norm': 5.0", '--score=score', 'one release'),
    ("'adapt.privacy': None", '--score=score', 'has no privacy'),
    ("'adapt.seed': 5", '', 'needs both'),
  ],
)
def test_arms_that_would_be_different_releases_are_no_choice(
  choice, config, tmp_path, capsys, override, words, message
):
  path = pathlib.Path(config)
  text = path.read_text().replace("'adapt.learning_rate': 0.001", override)
  path.write_text(text)
  assert choice(*filter(None, [words])) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'w').exists()


@pytest.fixture
def began(config, tmp_path, monkeypatch):
  """The runs that a sweep has begun, as (folder, stages), in their order."""
  runs, whole = [], sweep.run

  def run(spec, workdir, overrides, flags, *rest, **options):
    stages = next((f[9:] for f in flags if f.startswith('--stages=')), 'all')
    runs.append((pathlib.Path(workdir).name, stages))
    whole(spec, workdir, overrides, flags, *rest, **options)

  monkeypatch.setattr(sweep, 'run', run)
  return runs


def test_side_by_side_all_releases_are_recorded_before_any_arm_starts(
  config, tmp_path, began
):
  pathlib.Path(config).write_text(PRIVATE)
  assert sweep.main([config, str(tmp_path / 'w'), '--jobs=2']) == 0
  arms = ['adapt.init=scratch', 'adapt.seed=2']
  assert began[0] == ('base', 'prepare,autoencoder,encode,diffusion')
  assert began[1:3] == [(arm, 'record') for arm in arms]
  assert sorted(began[3:]) == [(arm, 'all') for arm in arms]
  assert json.loads((tmp_path / 'w' / sweep.RECORDED).read_text()) == arms
  assert '| adapt.seed=2 | 1 |' in (tmp_path / 'w' / 'sweep.md').read_text()


def test_arms_that_no_longer_fit_into_the_total_are_not_started(
  config, tmp_path, began, monkeypatch, capsys
):
  pathlib.Path(config).write_text(PRIVATE)
  whole = sweep.run

  def run(spec, workdir, overrides, flags, *rest, **options):
    if workdir.name == 'adapt.seed=2' and '--stages=record' in flags:
      raise sweep.subprocess.CalledProcessError(2, ['arm'])
    whole(spec, workdir, overrides, flags, *rest, **options)

  monkeypatch.setattr(sweep, 'run', run)
  assert sweep.main([config, str(tmp_path / 'w'), '--jobs=2']) == 2
  assert ('adapt.init=scratch', 'all') in began
  assert ('adapt.seed=2', 'all') not in began
  assert 'adapt.seed=2 is not started' in capsys.readouterr().err
  assert '1 of 2 arms have been run' in (tmp_path / 'w' / 'sweep.md').read_text()


SBATCH = """#!/usr/bin/env bash
printf '%q ' "$@" >> "$NOTES"; echo "TOOL=$LDM_JAX_TOOL" >> "$NOTES"
wc -l < "$NOTES"
"""


def test_on_slurm_each_phase_is_a_job_that_waits_for_the_one_before(
  config, tmp_path, monkeypatch, capfd
):
  pathlib.Path(config).write_text(PRIVATE)
  tools, notes = tmp_path / 'bin', tmp_path / 'notes'
  tools.mkdir()
  (tools / 'sbatch').write_text(SBATCH)
  (tools / 'sbatch').chmod(0o755)
  monkeypatch.setenv('PATH', f'{tools}:{os.environ["PATH"]}')
  monkeypatch.setenv('NOTES', str(notes))
  monkeypatch.setenv('PARTITION', 'gpu')
  monkeypatch.setattr(sweep.subprocess, 'run', REAL_RUN)
  assert sweep.main([config, str(tmp_path / 'w'), '--on=slurm', '--x=1']) == 0
  base, record, first, table = notes.read_text().splitlines()
  for line in (base, record, first, table):
    assert line.endswith('TOOL=sweep.py') and '--x=1' in line and '--parsable' in line
  assert '--dependency' not in base and '--task=base' in base
  assert '--dependency=afterok:1 ' in record and '--array' not in record
  assert '--dependency=afterok:2 ' in first and '--array=0-1 ' in first
  assert '--dependency=afterany:3 ' in table
  assert 'first is job 3' in capfd.readouterr().out


def test_on_slurm_and_kubernetes_a_dry_run_prints_every_job(tmp_path, monkeypatch):
  spec = str(PATH.parent.parent / 'configs' / 'cardiac.py:tiny')
  settings = {'DRY_RUN': '1', 'PARTITION': 'gpu', 'IMAGE': 'i', 'CLAIM': 'c'}
  command = [sys.executable, PATH, spec, tmp_path / 'w']
  for place, job in (('slurm', 'sbatch'), ('k8s', 'kubectl')):
    done = subprocess.run(
      [*command, f'--on={place}'],
      env={**os.environ, **settings},
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr
    started = [line for line in done.stdout.splitlines() if line.startswith(job)]
    assert len(started) == 3, 'a phantom has a ledger for each arm'
  assert done.stdout.count('FailIndex') == 3 and 'completions: 3' in done.stdout
  assert not (tmp_path / 'w').exists()


def test_a_place_that_is_none_is_refused(config, tmp_path, capsys):
  for words in (['--on=cloud'], ['--jobs=0'], ['--jobs=2', '--best_of=3', '--score=a']):
    assert sweep.main([config, str(tmp_path / 'w'), *words]) == 2
  assert '--on=cloud' in capsys.readouterr().err


def test_what_is_recorded_first_is_spent_once_and_within_the_total(tmp_path, finished):
  """One arm records, another does not fit; the first goes on with its release."""
  micro = parsing.load(str(PATH.parent.parent / 'tests' / 'micro.py'))
  ledger = tmp_path / 'ledger.jsonl'
  settings = {'ledger.path': str(ledger), 'adapt.privacy.epsilon': 2.0}
  arm_of = lambda seed: parsing.override(
    micro.copy_and_resolve_references(),
    {**settings, 'ledger.total_epsilon': 2.2, 'adapt.seed': seed},
  )
  for seed in (1, 2):
    sweep.share(finished, tmp_path / str(seed))
  stages.run(arm_of(1), tmp_path / '1', 'record')
  before = ledger.read_bytes()
  with pytest.raises(ValueError, match='total'):
    stages.run(arm_of(2), tmp_path / '2', 'record')
  assert ledger.read_bytes() == before and before.count(b'"steps"') == 1
  stages.run(arm_of(1), tmp_path / '1', 'record')
  assert ledger.read_bytes() == before
  first = Run(arm_of(1), WorkFolder(tmp_path / '1'))
  assert not runner.will_start_anew('adapt', first), 'it goes on from its release'
  assert not list((tmp_path / '1').glob('checkpoints/adapt*/state'))
