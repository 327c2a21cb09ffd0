"""Runs the arms of a config's sweep() one after another and tabulates their metrics.

  .venv/bin/python launch/sweep.py CONFIG[:ARGS] WORKDIR [FLAGS...]

Each arm is a run in WORKDIR/<its overrides>. What no arm repeats (prepare, autoencoder,
encode, diffusion) is learned once in WORKDIR/base and given to every arm; an arm
whose overrides touch one of these stages does it again by itself. The table stands in
WORKDIR/sweep.md and sweep.csv. The same command again resumes. DRY_RUN=1 prints the
commands.

Privacy: every arm is one more release on the same patients, so all arms share one
ledger, WORKDIR/ledger-private.jsonl (or that of --config.ledger.path), and the sweep
stops at the arm that would exceed the total: give --config.ledger.total_epsilon, of
which each arm spends adapt.privacy.epsilon. Only where the private cohort is a phantom,
which protects nobody, does each arm begin a ledger of its own, unless
--config.ledger.path names one.
"""

import csv
import json
import os
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys

from ldm_jax import checks
from ldm_jax import config as configs

SHARED_STAGES = ('prepare', 'autoencoder', 'encode', 'diffusion')
LEDGER = 'ledger-private.jsonl'


def main(argv):
  """Returns the exit status: 0, or that of the arm that failed."""
  if len(argv) < 2 or argv[0].startswith('-'):
    print(__doc__, file=sys.stderr)
    return 2
  spec, root, flags = argv[0], pathlib.Path(argv[1]), argv[2:]
  dry = os.environ.get('DRY_RUN') == '1'
  try:
    arms = read_arms(spec)
    fresh = configs.load(spec).data.private.layout.startswith('phantom_')
    base = root / 'base'
    if not fresh:
      flags = [f'--config.ledger.path={shared_ledger(root)}', *flags]
      print('sweep: the private cohort is no phantom; its arms share one ledger')
    run(spec, base, {}, [*flags, f'--stages={",".join(SHARED_STAGES)}'], dry)
    for name, overrides in arms.items():
      if not dry:
        share(base, root / name)
      run(spec, root / name, overrides, flags, dry)
  except subprocess.CalledProcessError as error:
    print(f'sweep: this arm failed: {shlex.join(error.cmd)}', file=sys.stderr)
    return error.returncode
  except ValueError as error:
    print(f'sweep: {error}', file=sys.stderr)
    return 2
  if not dry:
    print(write_tables(root, {name: figures(root / name) for name in arms}))
  return 0


def read_arms(spec):
  """Name of each arm, usable as a folder -> its overrides.

  Raises:
    ValueError: if the config has no sweep(), or an override does not fit the config.
  """
  found = runpy.run_path(spec.partition(':')[0]).get('sweep')
  if found is None:
    raise ValueError(f'{spec} has no function sweep(); see configs/cardiac.py for one.')
  arms = {}
  for overrides in found():
    checks.check(configs.override(configs.load(spec), overrides))
    text = ','.join(f'{key}={value}' for key, value in overrides.items())
    arms[re.sub(r'[^\w.,=+-]', '_', text)[:200]] = overrides
  return arms


def run(spec, workdir, overrides, flags, dry):
  """Runs one arm in a process of its own, or prints its command."""
  command = [
    *(sys.executable, '-m', 'ldm_jax.main', f'--config={spec}', f'--workdir={workdir}'),
    *(f'--config.{key}={value}' for key, value in overrides.items()),
    *flags,
  ]
  print(shlex.join(command), flush=True)
  if not dry:
    subprocess.run(command, check=True)


def share(base, arm):
  """Gives an arm that has not begun the store and the public networks of `base`."""
  for folder in ('store', *(f'checkpoints/{stage}' for stage in SHARED_STAGES)):
    if not (arm / folder).exists():
      part = arm / f'{folder}.part'
      shutil.rmtree(part, ignore_errors=True)
      # Files of the store are never changed in place, so links to them are safe.
      shutil.copytree(
        base / folder,
        part,
        copy_function=_link if folder == 'store' else shutil.copy2,
        ignore=shutil.ignore_patterns('ledger-*'),
      )
      os.rename(part, arm / folder)


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


def figures(arm):
  """{'control.LV_volume.pearson_r': value} of an arm's metrics and its epsilon."""
  found = {}
  statement = arm / 'privacy.json'
  if statement.is_file():
    found['epsilon'] = json.loads(statement.read_text())['epsilon']
  metrics = json.loads((arm / 'metrics.json').read_text())
  return found | dict(_leaves(metrics, ''))


def write_tables(root, columns):
  """Writes sweep.csv (all figures) and sweep.md (those with intervals); returns it."""
  names = list(dict.fromkeys(key for column in columns.values() for key in column))
  with open(root / 'sweep.csv', 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['figure', *columns])
    for name in names:
      writer.writerow([name, *(column.get(name) for column in columns.values())])
  lines = [['figure', *columns], ['---'] * (len(columns) + 1)]
  for name in names:
    if not re.search(r'([._]low|[._]high|\.n|\.n(um)?_\w+)$', name):
      lines.append([name, *(_cell(column, name) for column in columns.values())])
  table = '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'
  (root / 'sweep.md').write_text(table, encoding='utf-8')
  return table


def _leaves(node, path):
  for key, value in node.items() if isinstance(node, dict) else ():
    name = f'{path}.{key}' if path else key
    if isinstance(value, dict):
      yield from _leaves(value, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
      yield name.removesuffix('.value'), value


def _cell(column, name):
  """'0.912 [0.88, 0.94]', without brackets where there is no interval."""
  value = column.get(name)
  if value is None or isinstance(value, str):
    return value or ''
  for separator in '._':
    low, high = (column.get(f'{name}{separator}{end}') for end in ('low', 'high'))
    if low is not None and high is not None:
      return f'{value:.4g} [{low:.4g}, {high:.4g}]'
  return f'{value:.4g}'


def _link(source, target):
  try:
    os.link(source, target)
  except OSError:  # another disk, or one without links
    shutil.copy2(source, target)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
