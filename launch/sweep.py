"""Runs the arms of a config's sweep() one after another and tabulates their metrics.

  .venv/bin/python launch/sweep.py CONFIG[:ARGS] WORKDIR [--group=NAME] [--arms=REGEX] \
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

import json
import os
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys

from ldm_jax.commands import choose_arm
from ldm_jax.config import checks, parsing
from ldm_jax.data import demonstration_split
from ldm_jax.report import sweep_table

SHARED_STAGES = ('prepare', 'autoencoder', 'encode', 'diffusion')
# Learned by the stage evaluate, from public volumes; it knows what it was learned from.
MEASURING = 'checkpoints/measurement'
DRIFT = 'checkpoints/adapt/drift.json'
LEDGER = 'ledger-private.jsonl'
ADAPTED = 'checkpoints/adapt'
# What a fine-tuning leaves beside its model: what it spent and what it published.
PUBLISHED = ('privacy.json', f'store/{LEDGER}', 'store/release-*.json')
# Sections of the config that it does not read.
AFTER_ADAPT = ('sample.', 'counterfactual.', 'evaluate.')
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
  flags, group, pattern, alone, mean, score = options(argv[2:])
  dry = os.environ.get('DRY_RUN') == '1'
  try:
    arms = read_arms(spec, group, pattern)
    if mean or score:
      return choose_best(spec, root, arms, flags, mean, score, alone, dry)
    started = with_flags(spec, flags).data
    made_up = started.private.layout.startswith('phantom_')
    fresh = alone or made_up
    note = ALONE if fresh else TOGETHER
    banner = demonstration_split.warning(started)
    print(f'sweep: {" ".join(filter(None, (banner, note)))}', flush=True)
    base = root / 'base'
    if alone:
      flags = ['--config.ledger.registry=none', *flags]
    if not fresh:
      flags = [f'--config.ledger.path={shared_ledger(root)}', *flags]
      print('sweep: the private cohort is no phantom; its arms share one ledger')
    run(spec, base, {}, [*flags, f'--stages={",".join(SHARED_STAGES)}'], dry)
    drifts, tuned, found, internal = {}, {}, {}, set()
    for name, overrides in arms.items():
      first = tuned.setdefault(fine_tuning(overrides), name)
      if not dry:
        share(base, root / name)
        give_adapted(root / first, root / name)
      run(spec, root / name, with_found_drift(overrides, drifts), flags, dry)
      if not dry:
        give(root / name, base, MEASURING)
        keep_drift(root / name, overrides, drifts)
        found[name] = sweep_table.figures(root / name)
        internal |= sweep_table.internal(root / name)
        text = sweep_table.write(root, found, arms, note, banner, internal)
  except subprocess.CalledProcessError as error:
    print(f'sweep: this arm failed: {shlex.join(error.cmd)}', file=sys.stderr)
    return error.returncode
  except ValueError as error:
    print(f'sweep: {error}', file=sys.stderr)
    return 2
  if not dry and not made_up:
    # Of patients nothing internal is printed, which a cluster would keep in a log.
    text = f'sweep: the table is {root / "sweep.md"}'
  if not dry:
    print(text)
  return 0


def options(words):
  """(flags for every arm, group, pattern of names, whether each arm stands alone, mean
  number of runs of a private choice, its score)."""
  flags, found = [], {'--group': '', '--arms': '', '--best_of': '', '--score': ''}
  for word in words:
    key, _, value = word.partition('=')
    if key in found:
      found[key] = value
    elif word != '--each_arm_alone':
      flags.append(word)
  alone = '--each_arm_alone' in words
  return flags, found['--group'], found['--arms'], alone, *list(found.values())[2:]


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


def read_arms(spec, group='', pattern=''):
  """Name of each arm, usable as a folder -> its overrides.

  Args:
    spec: CONFIG[:ARGS]; its sweep() returns arms, or groups of arms by name. Arms are a
      list of overrides, or a dict of them by name.
    group: '' for the first.
    pattern: regular expression that the names of the wanted arms match.

  Raises:
    ValueError: if the config has no sweep(), no such group or arm, or an override does
      not fit the config.
  """
  found = runpy.run_path(spec.partition(':')[0]).get('sweep')
  if found is None:
    raise ValueError(f'{spec} has no function sweep(); see configs/cardiac.py for one.')
  groups = found()
  if isinstance(groups, list):
    groups = {'': groups}
  if group not in groups and group:
    raise ValueError(
      f'{spec} has no group {group!r} of arms; --group is one of {", ".join(groups)}.'
    )
  arms = {}
  for name, overrides in _named(groups[group or next(iter(groups))]):
    if re.search(pattern, name):
      checks.check(parsing.override(parsing.load(spec, overrides), overrides))
      arms[re.sub(r'[^\w.,=+-]', '_', name)[:200]] = overrides
  if not arms:
    raise ValueError(f'{spec} has no arm whose name matches --arms={pattern}.')
  return arms


def _named(arms):
  """(name, overrides) of a list or a dict of arms."""
  if isinstance(arms, dict):
    return arms.items()
  text = lambda overrides: ','.join(f'{key}={v}' for key, v in overrides.items())
  return [(text(overrides), overrides) for overrides in arms]


def run(spec, workdir, overrides, flags, dry, output=None):
  """Runs one arm in a process of its own, or prints its command.

  With an open file as `output` nothing is printed: it gets what the process prints.
  """
  command = [
    *(sys.executable, '-m', 'ldm_jax.main', f'--config={spec}', f'--workdir={workdir}'),
    *(f'--config.{key}={value}' for key, value in overrides.items()),
    *flags,
  ]
  if output is None:
    print(shlex.join(command), flush=True)
  if not dry:
    streams = {} if output is None else {'stdout': output, 'stderr': output}
    subprocess.run(command, check=True, **streams)


def share(base, arm):
  """Gives an arm that has not begun the store and the public networks of `base`."""
  for folder in ('store', *(f'checkpoints/{stage}' for stage in SHARED_STAGES)):
    give(base, arm, folder)
  give(base, arm, MEASURING)


def give(source, target, folder):
  """Copies a finished folder of one run to another that has none."""
  finished = folder != MEASURING or (source / folder / 'done.json').is_file()
  begun = (target / folder).exists() or (target / f'{folder}.new').exists()
  if begun or not finished:
    return
  part = target / f'{folder}.part'
  shutil.rmtree(part, ignore_errors=True)
  # Files of the store are never changed in place, so links to them are safe.
  shutil.copytree(
    source / folder,
    part,
    copy_function=_link if folder == 'store' else shutil.copy2,
    ignore=shutil.ignore_patterns('ledger-*'),
  )
  os.rename(part, target / folder)


def fine_tuning(overrides):
  """What tells the fine-tunings of arms apart, as text."""
  read = {k: v for k, v in overrides.items() if not k.startswith(AFTER_ADAPT)}
  return str(sorted(read.items()))


def give_adapted(first, arm):
  """Gives an arm that has not begun the model of a finished one of equal fine-tuning.

  The model was released once, so the arm's ledger and statement are those of `first`.
  An arm whose own ledger holds anything else keeps it: a ledger only grows.
  """
  begun = (arm / ADAPTED).exists() or (arm / f'{ADAPTED}.new').exists()
  if begun or not (first / ADAPTED / 'done.json').is_file():
    return
  own, theirs = arm / 'store' / LEDGER, first / 'store' / LEDGER
  spent = theirs.read_bytes() if theirs.is_file() else None
  if own.is_file() and own.read_bytes() != spent:
    return
  for pattern in PUBLISHED:
    for path in first.glob(pattern):
      shutil.copy2(path, arm / path.relative_to(first))
  give(first, arm, ADAPTED)


def with_found_drift(overrides, drifts):
  """Overrides of an arm that takes the drift which an arm before it has searched for.

  What is found follows from the data and the pre-trained model, which arms share, and
  is the same for all methods. A private search is a release of its own in every arm.
  """
  value = drifts.get(overrides.get('adapt.drift.search'))
  if value is None:
    return overrides
  return {**overrides, 'adapt.drift.search': '', 'adapt.drift.value': value}


def keep_drift(arm, overrides, drifts):
  """Adds the drift that a finished arm has searched for without privacy."""
  search, path = overrides.get('adapt.drift.search'), arm / DRIFT
  is_open = overrides.get('adapt.privacy', True) is None
  if search and is_open and search not in drifts and path.is_file():
    value = json.loads(path.read_text())['value']
    drifts[search] = tuple(value) if isinstance(value, list) else value


def shared_ledger(root):
  """The ledger of all arms of a sweep on real patients.

  Raises:
    ValueError: if arms of an earlier version hold ledgers and there is no shared one.
  """
  path = root / LEDGER
  found = sorted(root.glob(f'*/store/{LEDGER}'))
  if found and not path.exists():
    raise ValueError(
      f'{len(found)} arms in {root} have ledgers of their own, but there is no {path}, '
      f'which would forget them. Copy the longest of them there: {found[-1]}, ...'
    )
  return path


def _link(source, target):
  try:
    os.link(source, target)
  except OSError:  # another disk, or one without links
    shutil.copy2(source, target)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
