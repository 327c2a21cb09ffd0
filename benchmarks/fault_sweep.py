"""Kills processes of a run at random moments and checks that nothing is lost.

  python benchmarks/fault_sweep.py --out=FOLDER [--kills=60] [--processes=2] [--seed=0]
    [--aimed]

Runs tests/micro.py (or --config) in several processes, kills one of them at a random
moment (also the first), waits for the others, and gives the same command again, now and
then with one process. Every fourth moment is counted from the start, the others from
when the run has logged something, so that stages are hit and not only the start-up.
With --aimed each stage in turn is hit the same number of times, at a moment of the time
that it took in the run of the reference; without, and once a run has got through, most
kills are in the longest stages.
When a run gets through, it is compared with a run of one process that was never killed,
and the next one begins. Checked at each kill:

- the others end within --seconds, with one sentence and a status that asks for a
  restart;
- the ledger only grows at its end, and no private run is recorded twice;
- stages that had finished are not run again.

and of each finished run: what the fine-tuning has changed, which no step with other
noise or other patients would leave equal, statement, samples and their table.

The last line is JSON: {"benchmark", "kills", "runs", "problems": [text], ...}; the same
is in FOLDER/result.json after each kill. The status is 1 where there are problems.
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEDGER = 'store/ledger-private.jsonl'
RESTART = (75, 143, 137)  # statuses after which the same command goes on


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--out', required=True)
  parser.add_argument('--config', default=str(ROOT / 'tests' / 'micro.py'))
  parser.add_argument('--kills', type=int, default=60)
  parser.add_argument('--processes', type=int, default=2)
  parser.add_argument('--seconds', type=float, default=60.0)
  parser.add_argument('--longest', type=float, default=60.0, help='before a kill')
  parser.add_argument('--aimed', action='store_true', help='at each stage in turn')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--reference', help='a finished work folder of one process')
  flags = parser.parse_args()
  out = pathlib.Path(flags.out)
  out.mkdir(parents=True, exist_ok=True)
  reference = pathlib.Path(flags.reference or out / 'reference')
  if not finished(reference):
    (process,) = start(flags.config, reference, 1, out / 'reference.txt')
    if process.wait():
      raise SystemExit((out / 'reference.txt.0').read_text()[-2000:])
  draw, problems, moments, waits = random.Random(flags.seed), [], [], []
  kills = runs = 0
  work, begun = out / 'work-0', time.monotonic()
  aims = iter(targets(reference, flags.kills) if flags.aimed else ())
  while kills < flags.kills:
    # Seldom with another number: then only the first can be killed.
    count = flags.processes if draw.random() < 0.8 else 1
    open_aims = (aim for aim in aims if not has_ended(work, aim[0]))
    stage, longest = next(open_aims, ('', flags.longest))
    moment, victim = draw.uniform(0, longest), draw.randrange(count)
    log = None if draw.random() < (0.1 if stage else 0.25) else work / 'log.jsonl'
    before = state(work)
    processes = start(flags.config, work, count, out / 'output.txt')
    if survives(processes, moment, log, stage):
      problems += compared(work, reference)
      runs += 1
      shutil.rmtree(work)
      work, aims = out / f'work-{runs}', iter(())
      continue
    found = already_ended(processes, out / 'output.txt')
    processes[victim].kill()
    kills += 1
    moments.append(stage_of(work))
    killed = time.monotonic()
    found += ends(processes, victim, flags.seconds, out / 'output.txt')
    waits.append(time.monotonic() - killed)
    found += kept(work, before)
    since = 'the start' if log is None else stage or 'the first event'
    which = f'{moments[-1]}, {moment:.0f} s after {since}, process {victim} of {count}'
    problems += [f'kill {kills} ({which}): {problem}' for problem in found]
    print(
      f'kill {kills} of {flags.kills}: {which}, ended in {waits[-1]:.0f} s: '
      f'{found or "ok"}',
      flush=True,
    )
    write(out, flags, kills, runs, moments, waits, begun, problems)
  # The last one goes through undisturbed, in one process.
  (process,) = start(flags.config, work, 1, out / 'output.txt')
  if process.wait():
    problems.append(f'does not go on: {(out / "output.txt.0").read_text()[-500:]}')
  else:
    problems += compared(work, reference)
  print(write(out, flags, kills, runs + 1, moments, waits, begun, problems))
  return 1 if problems else 0


def write(out, flags, kills, runs, moments, waits, begun, problems):
  """Writes result.json; returns its text."""
  text = json.dumps(
    {
      'benchmark': 'fault_sweep',
      'kills': kills,
      'processes': flags.processes,
      'runs': runs,
      'stages': {name: moments.count(name) for name in dict.fromkeys(moments)},
      'slowest_end_seconds': round(max(waits, default=0.0), 1),
      'seconds': round(time.monotonic() - begun),
      'problems': problems,
    }
  )
  (out / 'result.json').write_text(text + '\n')
  return text


def start(config, work, count, output):
  """Processes of one command on a work folder."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{probe.getsockname()[1]}'
  words = [sys.executable, '-m', 'ldm_jax.main', f'--config={config}']
  words.append(f'--workdir={work}')
  started = []
  for number in range(count):
    several = [f'--coordinator={address}', f'--num_processes={count}']
    several += [f'--process_id={number}']
    with open(f'{output}.{number}', 'w') as file:
      started.append(
        subprocess.Popen(
          [*words, *(several if count > 1 else ())],
          cwd=ROOT,
          stdout=file,
          stderr=subprocess.STDOUT,
        )
      )
  return started


def targets(reference, kills):
  """(stage, seconds that it took in the reference): each as often, in their order."""
  begun, lengths = {}, {}
  for line in (reference / 'log.jsonl').read_text().splitlines():
    event = json.loads(line)
    if event.get('event') == 'start':
      begun[event['stage']] = event['time']
    elif event.get('event') == 'end':
      lengths[event['stage']] = event['time'] - begun[event['stage']]
  each = -(-kills // len(lengths))
  return [(name, lengths[name]) for name in lengths for _ in range(each)]


def survives(processes, moment, log=None, stage=''):
  """Waits until a moment; True where all have ended well before it.

  With a path of a log the moment is counted from when it has grown, or with a stage
  from when that has begun again.
  """

  def size():
    if log is None or not log.is_file():
      return 0
    start = f'"stage": "{stage}", "event": "start"'
    return log.read_text().count(start) if stage else log.stat().st_size

  before, begun, is_on = size(), time.monotonic(), log is None
  while not is_on or time.monotonic() < begun + moment:
    time.sleep(0.05)
    if not is_on:
      is_on, begun = size() != before, time.monotonic()
    if all(process.poll() is not None for process in processes):
      return not any(process.returncode for process in processes)
  return False


def already_ended(processes, output):
  """Problems with processes that have failed before anything was killed."""
  return [
    f'process {number} ended by itself with {process.returncode}: '
    f'{pathlib.Path(f"{output}.{number}").read_text()[-300:]}'
    for number, process in enumerate(processes)
    if process.poll()
  ]


def ends(processes, victim, seconds, output):
  """Problems with how the others end."""
  found, begun = [], time.monotonic()
  for number, process in enumerate(processes):
    if number == victim:
      process.wait()
      continue
    try:
      process.wait(max(0.0, seconds - (time.monotonic() - begun)))
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
      text = pathlib.Path(f'{output}.{number}').read_text()[-200:]
      found.append(
        f'process {number} was still there after {seconds:g} seconds: {text!r}'
      )
      continue
    text = pathlib.Path(f'{output}.{number}').read_text()
    told = [line for line in text.splitlines() if line.startswith('ldm-jax: ')]
    if process.returncode == 0:
      continue  # it had done its part
    if process.returncode not in RESTART and process.returncode != -signal.SIGTERM:
      found.append(f'process {number} ended with {process.returncode}: {text[-300:]}')
    if len(told) != 1:
      found.append(f'process {number} said {len(told)} sentences: {text[-300:]}')
    if 'Traceback' in text:
      found.append(f'process {number} showed a traceback')
  return found


def state(work):
  """What must not change: lines of the ledger, stages that have finished."""
  ledger = work / LEDGER
  done = work.glob('checkpoints/*/done.json')
  return {
    'ledger': ledger.read_text().splitlines() if ledger.is_file() else [],
    'done': {str(path.relative_to(work)): path.read_bytes() for path in done},
  }


def kept(work, before):
  """Problems with what is there after a kill."""
  after, found = state(work), []
  if after['ledger'][: len(before['ledger'])] != before['ledger']:
    found.append('lines of the ledger are gone or were changed')
  releases = [line for line in after['ledger'] if '"steps"' in line]
  if len(releases) > 1:
    found.append(f'{len(releases)} releases are recorded for one run')
  for name, content in before['done'].items():
    if after['done'].get(name) != content:
      found.append(f'{name} was finished and is not any more')
  return found


def stage_of(work):
  """The stage that was running, by the log."""
  log = work / 'log.jsonl'
  lines = log.read_text().splitlines() if log.is_file() else []
  for line in reversed(lines):
    try:
      return json.loads(line)['stage']
    except (ValueError, KeyError):  # a line that a kill has cut
      continue
  return 'start'


def has_ended(work, stage):
  return (work / 'checkpoints' / stage / 'done.json').is_file()


def finished(work):
  return has_ended(work, 'report')


def compared(work, reference):
  """Problems of a finished run beside one that was never killed."""
  if not finished(work):
    return [f'{work.name} has ended without its report']
  found = []
  mine, theirs = (change(each) for each in (work, reference))
  apart = np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)
  # Rounding leaves 2e-5, a step with other noise more than 1.
  if not apart < 1e-2:
    found.append(
      f'the fine-tuning has changed the model otherwise, by {apart:.3g} of it'
    )
  read = lambda each, name: json.loads((each / name).read_text())
  epsilons = [read(each, 'privacy.json')['epsilon'] for each in (work, reference)]
  if epsilons[0] != epsilons[1]:
    found.append(f'epsilon is {epsilons[0]}, expected {epsilons[1]}')
  tables = [table(each) for each in (work, reference)]
  if tables[0] != tables[1]:
    found.append('samples.csv differs')
  ours, theirs = (np.load(each / 'store/samples.npz') for each in (work, reference))
  for name in theirs:
    is_number = theirs[name].dtype.kind == 'f'
    if is_number and not np.allclose(ours[name], theirs[name], atol=5e-2):
      found.append(f'samples: {name} differs')
  return [f'{work.name}: {each}' for each in found]


def table(work):
  """Rows of samples.csv without the digest of the model, which rounding changes."""
  text = (work / 'samples' / 'samples.csv').read_text()
  return re.sub(r'sha256 \w+', 'sha256', text)


def change(work):
  """What the fine-tuning has changed, as one vector.

  Not the parameters: those without a gradient follow the rounding of earlier stages.
  """
  from ldm_jax.training import checkpoint, state

  after, before = (
    state.flatten(checkpoint.load_params(work / 'checkpoints' / stage))
    for stage in ('adapt', 'diffusion')
  )
  changes = [np.asarray(after[name]) - before[name] for name in sorted(before)]
  return np.concatenate([each.ravel() for each in changes])


if __name__ == '__main__':
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  sys.path.insert(0, str(ROOT))
  sys.exit(main())
