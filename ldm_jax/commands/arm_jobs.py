"""Arms of a sweep side by side: on this machine, as a Slurm array, or on Kubernetes.

A sweep is a few phases, each of which begins when the one before it has ended:

  base    the public stages, once, in WORKDIR/base
  own     again, in the arms whose overrides change them
  record  the releases of all arms in the ledger, one arm after the other
  first   the arms side by side, one of each fine-tuning
  later   those that only sample or evaluate the fine-tuning of another one otherwise
  table   of the arms that have finished

Nobody's release depends on which arm is quicker: all are planned, their noise is
calibrated and they are written down before any arm trains. An arm that no longer fits
into the total is not started.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ldm_jax.commands.arm_folders import AFTER_ADAPT, fine_tuning

PLACES = ('local', 'slurm', 'k8s')
# Overrides that leave everything before `adapt` as it is.
KEEPS_BASE = ('adapt.', 'ledger.', 'export.', *AFTER_ADAPT)
# Where Slurm and Kubernetes say which task of an array a process is.
INDICES = ('SLURM_ARRAY_TASK_ID', 'JOB_COMPLETION_INDEX')


@dataclasses.dataclass(frozen=True)
class Phase:
  """Tasks that may run at the same time.

  Attributes:
    name: of the phase.
    arms: one task for each; () for a single task of the whole sweep.
    any_end: whether it begins also where a task of the phase before has failed.
  """

  name: str
  arms: tuple[str, ...] = ()
  any_end: bool = False


def phases(arms: Mapping[str, Mapping[str, Any]], records: bool) -> list[Phase]:
  """The phases of a sweep, in their order.

  Args:
    arms: name -> overrides.
    records: whether the arms share a ledger.
  """
  firsts = first_of(arms)
  changed = [
    name
    for name, overrides in arms.items()
    if not all(key.startswith(KEEPS_BASE) for key in overrides)
  ]
  ones = tuple(name for name in arms if firsts[name] == name)
  others = tuple(name for name in arms if firsts[name] != name)
  found = [Phase('base')]
  found += [Phase('own', tuple(n for n in changed if n in ones))] if changed else []
  found += [Phase('record')] if records else []
  found.append(Phase('first', ones))
  found += [Phase('later', others, any_end=True)] if others else []
  return [*found, Phase('table', any_end=True)]


def first_of(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
  """Name of each arm -> the arm whose fine-tuning it has; itself for the first."""
  tuned: dict[str, str] = {}
  return {
    name: tuned.setdefault(fine_tuning(overrides), name)
    for name, overrides in arms.items()
  }


def task_of(
  text: str, found: Sequence[Phase], environment: Mapping[str, str]
) -> tuple[str, str]:
  """'first:2', or 'first' within an array -> (phase, name of its arm or '').

  Raises:
    ValueError: a phase or a number that the sweep does not have.
  """
  name, _, number = text.partition(':')
  phase = next((each for each in found if each.name == name), None)
  if phase is None:
    known = ', '.join(each.name for each in found)
    raise ValueError(f'--task={text}: expected one of {known}.')
  if not phase.arms:
    return name, ''
  number = number or next(
    (environment[key] for key in INDICES if environment.get(key)), ''
  )
  if not number.isdecimal() or int(number) >= len(phase.arms):
    raise ValueError(
      f'--task={text}: expected a number from 0 to {len(phase.arms) - 1} after it, as '
      f'in --task={name}:0.'
    )
  return name, phase.arms[int(number)]


def side_by_side(
  found: Sequence[Phase], do: Callable[[str, str], int], jobs: int
) -> int:
  """Runs all tasks on this machine, at most `jobs` at once; returns the exit status.

  A phase that failed ends the sweep, but for those that begin after any end.

  Args:
    found: phases.
    do: (phase, arm) -> exit status.
    jobs: processes at once.
  """
  worst = 0
  for phase in found:
    if worst and not phase.any_end:
      continue
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
      tasks = [pool.submit(do, phase.name, arm) for arm in phase.arms or ('',)]
      worst = next((s for s in (t.result() for t in tasks) if s), worst)
  return worst


def submit_to_slurm(
  found: Sequence[Phase], words: Sequence[str], launch: pathlib.Path, dry: bool
) -> None:
  """Submits a job for each phase, which waits for the one before it.

  Args:
    found: phases.
    words: arguments of launch/sweep.py.
    launch: folder of the launch scripts.
    dry: prints the commands instead.

  Raises:
    subprocess.CalledProcessError: sbatch refused a job.
  """
  before = ''
  for phase in found:
    options = ['--parsable', f'--job-name=sweep-{phase.name}']
    if phase.arms:
      options.append(f'--array=0-{len(phase.arms) - 1}')
    if before:
      end = 'afterany' if phase.any_end else 'afterok'
      options += [f'--dependency={end}:{before}', '--kill-on-invalid-dep=yes']
    environment = {**os.environ, 'OPTIONS': ' '.join(options), 'TOOL': 'sweep.py'}
    if phase.name in ('record', 'table'):  # the work of one process
      environment |= {'NODES': '1', 'TASKS': 'node'}
    done = subprocess.run(
      [str(launch / 'gpu_slurm.sh'), *words, f'--task={phase.name}'],
      env=environment,
      stdout=subprocess.PIPE,
      text=True,
      check=True,
    )
    told = done.stdout.strip()
    print(told if dry else f'sweep: {phase.name} is job {told}', flush=True)
    before = f'JOB_OF_{phase.name}' if dry else told.splitlines()[-1].partition(';')[0]


def submit_to_kubernetes(
  found: Sequence[Phase],
  words: Sequence[str],
  launch: pathlib.Path,
  dry: bool,
  seconds: float = 20.0,
) -> int:
  """Creates a Job for each phase when the one before it has ended.

  Arguments as of `submit_to_slurm`.

  Args:
    seconds: between two looks at a Job.

  Returns:
    0, or 1 where a Job has failed.

  Raises:
    subprocess.CalledProcessError: kubectl refused a Job.
  """
  prefix, failed = os.environ.get('NAME', 'ldm-jax'), False
  for phase in found:
    if failed and not phase.any_end:
      continue
    name = f'{prefix}-{phase.name}'
    environment = {**os.environ, 'NAME': name, 'TOOL': 'sweep.py'}
    environment |= {'ARMS': str(max(len(phase.arms), 1)), 'KIND': 'job'}
    command = [str(launch / 'k8s.sh'), *words, f'--task={phase.name}']
    subprocess.run(command, env=environment, check=True)
    if not dry:
      failed = not _succeeds(name, seconds) or failed
  return int(failed)


def _succeeds(name, seconds):
  """Waits until a Job has ended."""
  words = ['kubectl', f'--namespace={os.environ.get("NAMESPACE", "default")}']
  words += ['get', 'job', name, '-o']
  words.append('jsonpath={.status.conditions[?(@.status=="True")].type}')
  while True:
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    for condition in done.stdout.split():
      if condition in ('Complete', 'Failed'):
        print(f'sweep: {name}: {condition}', flush=True)
        return condition == 'Complete'
    time.sleep(seconds)
