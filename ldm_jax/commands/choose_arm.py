"""The runs of a private choice (`launch/sweep.py --best_of`), and what is left of them.

  WORKDIR/choice/choice.secret.json   the drawn arms, the best so far; mode 600
  WORKDIR/choice/<random name>/       the run under way, and the best one so far
  WORKDIR/chosen/                     the result

Losing runs are removed as soon as they have lost, and WORKDIR/choice at the end, so
that nobody learns how many there were. See `privacy/private_choice.py`.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from ldm_jax import atomic, damaged_files, replace_results
from ldm_jax.privacy import private_choice
from ldm_jax.types import Config

FOLDER, CHOSEN, FILE = 'choice', 'chosen', 'choice.secret.json'
# What the release in the ledger says of a run; the runs of a choice are one release.
RECORDED = (
  'adapt.steps',
  *(
    f'adapt.privacy.{key}'
    for key in (
      *('epsilon', 'delta', 'mechanism', 'max_batch_size', 'num_bands', 'clip_norm'),
      *('clipping', 'quantile', 'batch_size', 'seed', 'generator', 'best_of', 'choice'),
    )
  ),
)


def check(
  arms: Mapping[str, Mapping], mean: str, score: str, alone: bool, config: Config
) -> float:
  """The mean number of runs as a number.

  Args:
    arms: name -> overrides.
    mean, score: as given, '' for none.
    alone: whether each arm is to be accounted for by itself.
    config: that all arms begin with.

  Raises:
    ValueError: flags that do not go together, or arms that would be different releases.
  """
  try:
    number = float(mean)
  except ValueError:
    number = math.nan
  is_private = config.adapt.privacy is not None and config.data.private.layout
  if not score or not number >= 1 or alone or not is_private:
    raise ValueError(
      f'--best_of={mean} --score={score}: a private choice needs both, a mean of at '
      'least 1, a private cohort and adapt.privacy, and no --each_arm_alone.'
    )
  boards = [config.run.wandb, *(each.get('run.wandb') for each in arms.values())]
  if any(boards):
    raise ValueError(
      '--best_of: the curves of every run would be on W&B (run.wandb), and how many '
      'runs there were must stay secret. Set --config.run.wandb=.'
    )
  for name, overrides in arms.items():
    if overrides.get('adapt.privacy', True) is None:
      raise ValueError(
        f'arm {name} has no privacy, which no choice makes private. Leave it out by '
        '--arms.'
      )
  for key in sorted({key for overrides in arms.values() for key in overrides}):
    is_one = len({str(overrides.get(key)) for overrides in arms.values()}) == 1
    if not is_one and (key in RECORDED or key.startswith(('data.', 'ledger.'))):
      raise ValueError(
        f'the arms differ in {key}, but all runs of a private choice are one release. '
        'Expected arms that are alike in it: give it as a flag, or leave arms out by '
        '--arms.'
      )
  return number


def begin(root: pathlib.Path, arms: Mapping[str, Mapping], mean: float) -> dict:
  """The secret state of a choice: drawn once, kept until the choice is made.

  Raises:
    ValueError: a choice is made already, or was begun among other arms.
  """
  folder = root / FOLDER
  if (folder / FILE).exists():
    state = json.loads((folder / FILE).read_text())
    if state['among'] == list(arms) and state['mean'] == mean:
      return state
    raise ValueError(
      f'{folder} has begun a private choice among other arms or with another '
      '--best_of. Give the command as before.'
    )
  if (root / CHOSEN).exists():
    raise ValueError(
      f'{root / CHOSEN} holds what a private choice took. Another choice is another '
      'release on these patients: make it in another WORKDIR.'
    )
  drawn = private_choice.draw_arms(list(arms), mean)
  state = {
    'name': secrets.token_hex(8),
    'among': list(arms),
    'mean': mean,
    # Names say nothing of the place in the order, nor does what decides between equals.
    'runs': [[arm, secrets.token_hex(8), secrets.randbits(62)] for arm in drawn],
    'done': 0,
    'best': None,
  }
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  _keep(folder, state)
  return state


def choose(
  root: pathlib.Path,
  state: dict[str, Any],
  train: Callable[[pathlib.Path, str], None],
  score: str,
  ledger: str | os.PathLike,
) -> dict[str, Any]:
  """Makes the runs that are left; the best becomes WORKDIR/chosen.

  Args:
    root: WORKDIR.
    state: of `begin`.
    train: (folder, arm) -> None makes a run with its metrics.json, or resumes it.
    score: of `private_choice.score`.
    ledger: path of the ledger in which the choice is recorded.

  Returns:
    {'arm', 'score', 'run': name of its folder, 'tie'} of the chosen run.
  """
  folder = root / FOLDER
  while state['done'] < len(state['runs']):
    arm, name, tie = state['runs'][state['done']]
    train(folder / name, arm)
    metrics = json.loads((folder / name / 'metrics.json').read_text())
    mine = {
      'arm': arm,
      'run': name,
      'score': private_choice.score(metrics, score),
      'tie': tie,
    }
    best, loser = state['best'], name
    if best is None or _rank(mine) > _rank(best):
      state['best'], loser = mine, best and best['run']
    state['done'] += 1
    _keep(folder, state)
    if loser:
      replace_results.remove_folder(folder / loser)
  best = state['best']
  if (folder / best['run']).exists():
    os.rename(folder / best['run'], root / CHOSEN)
  begun = root / CHOSEN / 'checkpoints' / 'adapt' / 'started.json'
  private_choice.decide(ledger, state['name'], json.loads(begun.read_text())['run'])
  return best


def finish(root: pathlib.Path) -> None:
  """Removes what is left of the other runs, the secret, and the times of the chosen
  run: between its start, its end and its report lie the other ones.
  """
  log = root / CHOSEN / 'log.jsonl'
  if log.is_file():
    kept = []
    for line in log.read_text().splitlines():
      with contextlib.suppress(ValueError):  # cut by a kill
        event = {name: v for name, v in json.loads(line).items() if name != 'time'}
        kept.append(json.dumps(event) + '\n')
    atomic.write_text(log, ''.join(kept))
  replace_results.remove_folder(root / CHOSEN / 'tensorboard')
  _forget_times(root / CHOSEN)
  atomic.destroy(root / FOLDER / FILE)
  replace_results.remove_folder(root / FOLDER)


def _forget_times(folder):
  """Removes when the run was trained from its checkpoints and from its files' dates."""
  trained = folder / 'checkpoints' / 'adapt'
  for path in trained.rglob('_CHECKPOINT_METADATA'):
    text = path.read_text()
    # As many digits as before: the size of the file is noted.
    kept = re.sub(r'(?<=_timestamp_nsecs": )\d+', lambda m: '1' * len(m[0]), text)
    atomic.write_text(path, kept)
  note = trained / 'params.files.json'
  if note.is_file():
    damaged_files.note_files(trained / 'params', note, hashed=True)
  now = time.time()
  for path in (*folder.rglob('*'), folder):
    os.utime(path, (now, now), follow_symlinks=False)


def _rank(run):
  return run['score'], run['tie']


def _keep(folder, state):
  atomic.write_bytes(folder / FILE, json.dumps(state).encode(), mode=0o600)
