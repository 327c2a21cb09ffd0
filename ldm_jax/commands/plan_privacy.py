"""The command ldm-jax-privacy: a budget -> noise, noise -> a budget, or a whole plan.

ldm-jax-privacy --epsilon=10 --delta=1e-5 --num_patients=10000 --batch_size=256 \
  --steps=6000
ldm-jax-privacy --noise_multiplier=1.2 --delta=1e-5 --num_patients=10000 \
  --batch_size=256 --steps=6000 --json
ldm-jax-privacy --plan --epsilon=10 --delta=1e-5 --num_patients=10000 --steps=6000 \
  --num_parameters=2.8e7 --curves=plan.png

Exit status 0, or 2 with one paragraph on stderr for values that make no sense.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ldm_jax.privacy import budget


class _Parser(argparse.ArgumentParser):
  """Reports a bad flag as the ValueError that everything else here reports."""

  def error(self, message: str) -> NoReturn:
    raise ValueError(f'{message}. See ldm-jax-privacy --help.')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns the exit status."""
  try:
    flags = _parser().parse_args(argv)
    result = _plan(flags) if flags.plan else _price(flags)
    if flags.curves:
      _draw(result, flags.curves)
  except (ValueError, ArithmeticError) as error:
    print(f'ldm-jax-privacy: {error}', file=sys.stderr)
    return 2
  words = describe_plan if flags.plan else describe
  print(json.dumps(result) if flags.json else words(result))
  return 0


def describe(result: Mapping[str, Any]) -> str:
  """The result of `budget.price` in a few lines for people."""
  figures, choice = result['accountants'], []
  if 'best_of' in result:
    choice = [
      f'best of           {_number(result["epsilon_best_of"])} (RDP) if only the best '
      f'of a secret geometric number of runs, {result["best_of"]:g} on average, is '
      'published'
    ]
  return '\n'.join(
    [
      f'noise multiplier  {result["noise_multiplier"]:.6g}',
      f'epsilon           {_number(figures["pld"])} at delta {result["delta"]:g} (PLD; '
      f'RDP confirms at most {_number(figures["rdp"])})',
      f'sampling          {result["batch_size"]:g} of {result["num_patients"]} '
      f'patients expected per step (q = {result["sampling_probability"]:.4g}), '
      f'{result["steps"]} steps',
      'unit              one patient (zero-out, the number of patients is public)',
      *choice,
    ]
  )


def describe_plan(result: Mapping[str, Any]) -> str:
  """The result of `budget.plan` as a table for people."""
  chosen, count = result['suggested'], result['num_parameters']
  signal = f'{count:g} parameters' if count > 1 else 'one parameter'
  lines = [
    f'epsilon {result["epsilon"]:g} at delta {result["delta"]:g} for one of '
    f'{result["num_patients"]} patients, {result["steps"]} steps',
    f'{"batch size":>10}  {"q":>8}  {"noise multiplier":>16}  {"noise-to-signal":>15}',
  ]
  for row in result['table']:
    lines.append(
      f'{row["batch_size"]:>10g}  {row["sampling_probability"]:>8.4g}  '
      f'{row["noise_multiplier"]:>16.4g}  {row["noise_to_signal"]:>15.4g}'
      + ('  <- suggested' if row == chosen else '')
    )
  return '\n'.join(
    [
      *lines,
      f"noise-to-signal: norm of a step's noise over the largest norm of its clipped "
      f'mean gradient ({signal})',
      'suggested: the smallest batch within 10 % of the least noise-to-signal',
    ]
  )


def _price(flags):
  if flags.batch_size is None:
    raise ValueError(
      '--batch_size is needed: the expected patients per step. To find a good one, '
      'use --plan.'
    )
  if flags.curves:
    raise ValueError('--curves draws a plan: it needs --plan.')
  return budget.price(
    epsilon=flags.epsilon,
    noise_multiplier=flags.noise_multiplier,
    delta=flags.delta,
    num_patients=flags.num_patients,
    batch_size=flags.batch_size,
    steps=flags.steps,
    best_of=flags.best_of,
  )


def _plan(flags):
  if flags.epsilon is None or flags.noise_multiplier is not None:
    raise ValueError('--plan starts from --epsilon, and finds the noise multipliers.')
  if flags.curves and not pathlib.Path(flags.curves).resolve().parent.is_dir():
    raise ValueError(
      f'--curves={flags.curves} lies in no folder that exists; create it first.'
    )
  return budget.plan(
    epsilon=flags.epsilon,
    delta=flags.delta,
    num_patients=flags.num_patients,
    steps=flags.steps,
    num_parameters=flags.num_parameters,
    batch_size=flags.batch_size,
  )


def _draw(result, path):
  # Imported late: loading a plotting library takes longer than most answers.
  from ldm_jax.report import plots

  try:
    pathlib.Path(path).write_bytes(plots.budget(result, budget.curves(result)))
  except OSError as error:
    raise ValueError(
      f'--curves={path} cannot be written ({error.strerror}); name a file in a folder '
      'that exists and is writable.'
    ) from None


def _number(value):
  return value if isinstance(value, str) else f'{value:.4f}'


def _parser():
  parser = _Parser(
    prog='ldm-jax-privacy',
    description='Noise multiplier for a privacy budget, the epsilon of a noise '
    'multiplier, or a plan over batch sizes, for patient-level DP-SGD with Poisson '
    'sampling.',
  )
  parser.add_argument('--epsilon', type=float, help='budget to calibrate the noise for')
  parser.add_argument(
    '--noise_multiplier', type=float, help='noise deviation over the clip norm'
  )
  parser.add_argument(
    '--best_of',
    type=float,
    help='also epsilon of publishing only the best of a secret geometric number of '
    'such runs with this mean (Papernot and Steinke 2022)',
  )
  parser.add_argument(
    '--delta', type=float, required=True, help='below 1/num_patients, such as 1e-5'
  )
  parser.add_argument(
    '--num_patients', type=int, required=True, help='public size of the private cohort'
  )
  parser.add_argument('--batch_size', type=float, help='expected patients per step')
  parser.add_argument('--steps', type=int, required=True, help='number of noisy steps')
  parser.add_argument(
    '--plan', action='store_true', help='table over batch sizes, and a suggestion'
  )
  parser.add_argument(
    '--num_parameters',
    type=float,
    default=1,
    help='trained parameters, for the noise-to-signal ratio of a plan',
  )
  parser.add_argument('--curves', metavar='FILE.png', help='draws the plan')
  parser.add_argument('--json', action='store_true', help='print one JSON object')
  return parser


if __name__ == '__main__':
  sys.exit(main())
