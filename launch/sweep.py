"""Runs the arms of a config's sweep() and tabulates their metrics.

  .venv/bin/python launch/sweep.py CONFIG[:ARGS] WORKDIR [--group=NAME] [--arms=REGEX] \
    [--on=local|slurm|k8s] [--jobs=N] \
    [--each_arm_alone | --best_of=MEAN --score=FIGURE] [FLAGS...]

Each arm is a run in WORKDIR/<its name or overrides>. What no arm repeats (prepare,
autoencoder, encode, diffusion, the measuring network) is learned once in WORKDIR/base
and given to every arm; an arm whose overrides touch one of these does it again by
itself. Arms that differ only in how they sample or evaluate share one fine-tuning and
so one release. A drift that is searched for without privacy is found by the first arm
that asks for it. Arms that differ in seeds only are one row of the table, with their
mean and interval: WORKDIR/sweep.md, sweep.json; all figures of all arms: sweep.csv. All
three are written anew after each arm. The same command again resumes. DRY_RUN=1 prints
the commands.

--jobs=N runs N arms at once on this machine, --on=slurm all of them as an array of
Slurm (variables as of launch/gpu_slurm.sh), --on=k8s as indexed Jobs of Kubernetes
(launch/k8s.sh; one pod an arm). Then the releases of all arms are in the ledger before
any arm trains (commands/arm_jobs.py); each arm learns its measuring network and finds
its drift by itself. --task=table writes the table of the arms that have finished.

Where sweep() has several groups of arms, --group names one; the first is the default.
--arms runs those whose name the regular expression matches.

Privacy: every arm is one more release on the same patients, so all arms share one
ledger, WORKDIR/ledger-private.jsonl (or that of --config.ledger.path), and the sweep
stops at the arm that would exceed the total: give --config.ledger.total_epsilon, of
which each arm spends adapt.privacy.epsilon. Only where the private cohort is a phantom,
which protects nobody, does each arm begin a ledger of its own, unless
--config.ledger.path names one; or with --each_arm_alone, for open data that play the
part of private ones. Such a table shows what one arm gives if no other had been run;
the statement of each arm says so (--config.ledger.registry=none) and claims nothing.

--best_of=MEAN publishes the best arm alone, for one epsilon (Papernot and Steinke 2022,
privacy/private_choice.py): a secret number of runs, MEAN on average, each of an arm
drawn at random and with noise of its own, and of them the one with the best --score, a
figure of metrics.json that reads no confidential scan, such as
control.LV_volume.pearson_r (a minus before it: less is better). adapt.privacy.epsilon
is that of the choice; it is in the ledger before the first private step. WORKDIR/chosen
is the result. The other runs lie in WORKDIR/choice until then and are removed unseen;
do not look at them, nor count them.
"""

import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import sys

from ldm_jax import atomic
from ldm_jax.commands import arm_jobs, choose_arm
from ldm_jax.commands.arm_folders import (
  MEASURING,
  SHARED_STAGES,
  fine_tuning,
  give,
  give_adapted,
  keep_drift,
  share,
  shared_ledger,
  with_found_drift,
)
from ldm_jax.commands.arms_of_config import read_arms
from ldm_jax.config import parsing
from ldm_jax.data import demonstration_split
from ldm_jax.report import sweep_table

RECORDED = 'recorded.json'  # arms whose releases are in the ledger
# All of the default ones but the report, which says whether the run was chosen.
CHOICE_STAGES = ','.join(
  (*SHARED_STAGES, 'adapt', 'sample', 'counterfactual', 'evaluate')
)
ALONE = (
  'Each arm is accounted for by itself, as if no other had been run on these patients. '
  'On patients who need protection the epsilons of all arms add up.'
)
TOGETHER = 'The epsilon of an arm counts all arms that were run before it.'


def main(argv):
  """Returns the exit status: 0, or that of the arm that failed."""
  if len(argv) < 2 or argv[0].startswith('-'):
    print(__doc__, file=sys.stderr)
    return 2
  spec, root = argv[0], pathlib.Path(argv[1])
  flags, given = options(argv[2:])
  alone, dry = given['--each_arm_alone'], os.environ.get('DRY_RUN') == '1'
  try:
    arms = read_arms(spec, given['--group'], given['--arms'])
    mean, score = given['--best_of'], given['--score']
    is_here = (
      given['--on'] == 'local' and given['--jobs'] == '1' and not given['--task']
    )
    if mean or score:
      if not is_here:
        raise ValueError(
          '--best_of draws runs one after another; expected it without --on, --jobs '
          'and --task.'
        )
      return choose_best(spec, root, arms, flags, mean, score, alone, dry)
    started = with_flags(spec, flags).data
    made_up = started.private.layout.startswith('phantom_')
    fresh = alone or made_up
    banner = demonstration_split.warning(started)
    if alone:
      flags = ['--config.ledger.registry=none', *flags]
    if not fresh:
      flags = [f'--config.ledger.path={shared_ledger(root)}', *flags]
    note = ALONE if fresh else TOGETHER
    sweep = Sweep(spec, root, arms, flags, dry, note, banner, made_up)
    if given['--task']:
      found = arm_jobs.phases(arms, records=not fresh)
      task = arm_jobs.task_of(given['--task'], found, os.environ)
      return sweep.task(*task, becomes=True)
    print(f'sweep: {" ".join(filter(None, (banner, note)))}', flush=True)
    if not fresh:
      print('sweep: the private cohort is no phantom; its arms share one ledger')
    if is_here:
      return sweep.one_after_another()
    return sweep.side_by_side(
      given['--on'], given['--jobs'], arm_jobs.phases(arms, records=not fresh), argv
    )
  except subprocess.CalledProcessError as error:
    words = shlex.join(map(str, error.cmd))
    print(f'sweep: this arm failed: {words}', file=sys.stderr)
    return error.returncode
  except ValueError as error:
    print(f'sweep: {error}', file=sys.stderr)
    return 2


@dataclasses.dataclass(frozen=True)
class Sweep:
  """The runs of a sweep.

  Attributes:
    spec: CONFIG[:ARGS]. root: folder of the sweep.
    arms: name -> overrides. flags: of every arm.
    dry: prints commands instead of running them.
    note, banner: of the table.
    made_up: whether the private patients are a phantom's.
  """

  spec: str
  root: pathlib.Path
  arms: dict
  flags: list
  dry: bool
  note: str
  banner: str
  made_up: bool

  def one_after_another(self):
    """Runs all arms; returns the exit status."""
    base, dry = self.root / 'base', self.dry
    self.run('base')
    drifts, tuned, done = {}, {}, []
    for name, overrides in self.arms.items():
      first = tuned.setdefault(fine_tuning(overrides), name)
      arm = self.root / name
      if not dry:
        share(base, arm)
        give_adapted(self.root / first, arm)
      run(self.spec, arm, with_found_drift(overrides, drifts), self.flags, dry)
      if not dry:
        give(arm, base, MEASURING)
        keep_drift(arm, overrides, drifts)
        done.append(name)
        text = self.written_table(done)
    if not dry:
      print(text)
    return 0

  def written_table(self, done):
    """Writes the table of the arms `done`; returns what may be printed."""
    text = sweep_table.write(
      self.root,
      {name: sweep_table.figures(self.root / name) for name in done},
      self.arms,
      self.note,
      self.banner,
      set().union(*(sweep_table.internal(self.root / name) for name in done)),
    )
    # Of patients nothing internal is printed, which a cluster would keep in a log.
    return text if self.made_up else f'sweep: the table is {self.root / "sweep.md"}'

  def side_by_side(self, place, jobs, found, argv):
    """Runs the arms at the same time; returns the exit status.

    Raises:
      ValueError: an unknown place or number.
    """
    if place not in arm_jobs.PLACES or not jobs.isdecimal() or int(jobs) < 1:
      raise ValueError(
        f'--on={place} --jobs={jobs}: expected --on=local, slurm or k8s, and a number '
        'of arms at once from 1 up.'
      )
    launch = pathlib.Path(__file__).resolve().parent
    words = [word for word in argv if not word.startswith(('--on=', '--jobs='))]
    if place == 'slurm':
      words[1] = str(self.root.absolute())
      arm_jobs.submit_to_slurm(found, words, launch, self.dry)
      return 0
    if place == 'k8s':
      return arm_jobs.submit_to_kubernetes(found, words, launch, self.dry)
    return arm_jobs.side_by_side(found, self.task, int(jobs))

  def task(self, phase, name, becomes=False):
    """Does one task of a phase; returns its exit status.

    With `becomes` this process becomes the run, so that signals reach it.
    """
    if phase == 'record':
      return self.record()
    if phase == 'table':
      return self.table()
    if name:
      self.give_to(name)
    recorded = self.root / RECORDED
    planned = json.loads(recorded.read_text()) if recorded.is_file() else [name]
    if phase == 'first' and name not in planned:
      print(
        f'sweep: {name} is not started: the arms before it have planned what '
        'ledger.total_epsilon allows',
        file=sys.stderr,
      )
      return 2
    try:
      self.run(phase, name, becomes)
    except subprocess.CalledProcessError as error:
      words = shlex.join(map(str, error.cmd))
      print(f'sweep: this arm failed: {words}', file=sys.stderr)
      return error.returncode
    return 0

  def run(self, phase, name='', becomes=False):
    """Runs the base, or the stages of an arm that a phase asks for."""
    stages = [f'--stages={",".join(SHARED_STAGES)}'] if phase in ('base', 'own') else []
    overrides = self.arms[name] if name else {}
    folder = self.root / (name or 'base')
    flags = [*self.flags, *stages]
    more = {'becomes': True} if becomes else {}
    run(self.spec, folder, overrides, flags, self.dry, **more)

  def give_to(self, name):
    """Gives an arm what it shares with the base and with an equal fine-tuning."""
    if not self.dry:
      share(self.root / 'base', self.root / name)
      first = arm_jobs.first_of(self.arms)[name]
      if first != name:
        give_adapted(self.root / first, self.root / name)

  def record(self):
    """Plans the release of each arm that trains; none starts that does not fit."""
    done = []
    for name in dict.fromkeys(arm_jobs.first_of(self.arms).values()):
      self.give_to(name)
      flags = [*self.flags, '--stages=record']
      try:
        run(self.spec, self.root / name, self.arms[name], flags, self.dry)
      except subprocess.CalledProcessError as error:
        print(f'sweep: no release for {name} and those after it', file=sys.stderr)
        if not done:
          return error.returncode
        break
      done.append(name)
    if not self.dry:
      atomic.write_json(self.root / RECORDED, done)
    return 0

  def table(self):
    """Writes and prints the table of the arms that have finished."""
    done = [name for name in self.arms if (self.root / name / 'metrics.json').is_file()]
    if done:
      print(self.written_table(done))
    return 0


def options(words):
  """(flags for every arm, {flag of the sweep: its value})."""
  given = {'--group': '', '--arms': '', '--best_of': '', '--score': ''}
  given |= {'--on': 'local', '--jobs': '1', '--task': '', '--each_arm_alone': False}
  flags = []
  for word in words:
    key, _, value = word.partition('=')
    if key in given:
      given[key] = value or key == '--each_arm_alone'
    else:
      flags.append(word)
  return flags, given


def choose_best(spec, root, arms, flags, mean, score, alone, dry):
  """Makes a private choice among the arms; returns the exit status.

  Raises:
    ValueError: arms that no choice covers, or flags that do not go together.
    subprocess.CalledProcessError: a run failed.
  """
  config = with_flags(spec, flags)
  mean = choose_arm.check(arms, mean, score, alone, config)
  base, ledger = root / 'base', config.ledger.path
  if not ledger:
    ledger = shared_ledger(root)
    flags = [f'--config.ledger.path={ledger}', *flags]
  run(spec, base, {}, [*flags, f'--stages={",".join(SHARED_STAGES)}'], dry)
  if dry:
    print(f'sweep: then a secret number of runs, {mean:g} on average, of {list(arms)}')
    return 0
  state = choose_arm.begin(root, arms, mean)
  flags = [
    *flags,
    # Not rounded: the ledger must know the mean that the runs were drawn with.
    f'--config.adapt.privacy.best_of={mean!r}',
    f'--config.adapt.privacy.choice={state["name"]}',
  ]
  print('sweep: the runs of the private choice begin; how many they are stays secret')

  def train(folder, arm):
    share(base, folder)
    with open(folder / 'output.txt', 'a') as output:
      run(spec, folder, arms[arm], [*flags, f'--stages={CHOICE_STAGES}'], dry, output)
    give(folder, base, MEASURING)
    (folder / 'output.txt').unlink()

  try:
    best = choose_arm.choose(root, state, train, score, ledger)
  except subprocess.CalledProcessError as error:
    # The command would tell an arm that was drawn.
    kept = root / choose_arm.FOLDER / '*' / 'output.txt'
    told = f'a run of the private choice failed; what it printed is in {kept}'
    print(f'sweep: {told}. The same command goes on.', file=sys.stderr)
    return error.returncode
  run(spec, root / choose_arm.CHOSEN, arms[best['arm']], flags, dry)
  choose_arm.finish(root)
  print(
    f'sweep: {root / choose_arm.CHOSEN} is arm {best["arm"]}, {score} {best["score"]}'
  )
  return 0


def with_flags(spec, flags):
  """The config that all arms begin with."""
  words = [flag.removeprefix('--config.').partition('=') for flag in flags]
  keys = {key: value for key, _, value in words if not key.startswith('--')}
  return parsing.override(parsing.load(spec, keys), keys)


def run(spec, workdir, overrides, flags, dry, output=None, becomes=False):
  """Runs one arm in a process of its own, or prints its command.

  With an open file as `output` nothing is printed: it gets what the process prints.
  With `becomes` it replaces this process.
  """
  command = [
    *shlex.split(os.environ.get('LDM_JAX_START', '')),  # srun, for several processes
    *(sys.executable, '-m', 'ldm_jax.main', f'--config={spec}', f'--workdir={workdir}'),
    *(f'--config.{key}={value}' for key, value in overrides.items()),
    *flags,
  ]
  if output is None:
    print(shlex.join(command), flush=True)
  if not dry and becomes:
    os.execvp(command[0], command)
  if not dry:
    streams = {} if output is None else {'stdout': output, 'stderr': output}
    subprocess.run(command, check=True, **streams)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
