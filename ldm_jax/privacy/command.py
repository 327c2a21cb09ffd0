"""The command ldm-jax-privacy: a budget -> noise, or noise -> a budget.

ldm-jax-privacy --epsilon=10 --delta=1e-5 --num_patients=10000 --batch_size=256 \
  --steps=6000
ldm-jax-privacy --noise_multiplier=1.2 --delta=1e-5 --num_patients=10000 \
  --batch_size=256 --steps=6000 --json

Exit status 0, or 2 with one paragraph on stderr for values that make no sense.
"""

import argparse
import json
import sys

from ldm_jax.data.batching import PoissonSampler
from ldm_jax.privacy import accounting, checks, statement


class _Parser(argparse.ArgumentParser):
  """Reports a bad flag as the ValueError that everything else here reports."""

  def error(self, message):
    raise ValueError(f'{message}. See ldm-jax-privacy --help.')


def main(argv=None):
  """Runs the command; returns the exit status."""
  try:
    flags = _parser().parse_args(argv)
    result = plan(
      epsilon=flags.epsilon,
      noise_multiplier=flags.noise_multiplier,
      delta=flags.delta,
      num_patients=flags.num_patients,
      batch_size=flags.batch_size,
      steps=flags.steps,
    )
  except (ValueError, ArithmeticError) as error:
    print(f'ldm-jax-privacy: {error}', file=sys.stderr)
    return 2
  print(json.dumps(result) if flags.json else describe(result))
  return 0


def plan(
  *, epsilon=None, noise_multiplier=None, delta, num_patients, batch_size, steps
):
  """Calibrates the noise for a budget, or prices a noise multiplier.

  Args:
    epsilon, noise_multiplier: exactly one of them; the other is computed.
    delta: below 1 / num_patients.
    num_patients, batch_size, steps: public size of the cohort, expected patients per
      step, number of steps.

  Returns:
    A JSON-able dict: noise_multiplier, epsilon (PLD), accountants, and the inputs.

  Raises:
    ValueError: a value out of range.
  """
  if (epsilon is None) == (noise_multiplier is None):
    raise ValueError(
      'exactly one of --epsilon and --noise_multiplier is needed: the one that is '
      'given is fixed, the other is computed.'
    )
  checks.check_delta(delta, num_patients)
  probability = checks.sampling_probability(num_patients, batch_size)
  checks.check_steps(steps)
  if noise_multiplier is None:
    checks.check_epsilon(epsilon)
    noise_multiplier = accounting.calibrate(epsilon, delta, probability, steps)
  checks.check_noise_multiplier(noise_multiplier)
  sampler = PoissonSampler(num_patients, probability, secret=0)  # never drawn from
  event = accounting.training_event(sampler, noise_multiplier, steps)
  figures = accounting.epsilon([event], delta)
  return {
    'noise_multiplier': noise_multiplier,
    'epsilon': statement.finite(figures['pld']),
    'delta': delta,
    'accountants': {name: statement.finite(value) for name, value in figures.items()},
    'num_patients': num_patients,
    'batch_size': batch_size,
    'sampling_probability': probability,
    'steps': steps,
    'unit': 'patient',
    'relation': accounting.RELATION_NAME,
  }


def describe(result):
  """The result of `plan` in a few lines for people."""
  figures = result['accountants']
  return '\n'.join(
    [
      f'noise multiplier  {result["noise_multiplier"]:.6g}',
      f'epsilon           {_number(figures["pld"])} at delta {result["delta"]:g} (PLD; '
      f'RDP confirms at most {_number(figures["rdp"])})',
      f'sampling          {result["batch_size"]:g} of {result["num_patients"]} '
      f'patients expected per step (q = {result["sampling_probability"]:.4g}), '
      f'{result["steps"]} steps',
      'unit              one patient, added or removed',
    ]
  )


def _number(value):
  return value if isinstance(value, str) else f'{value:.4f}'


def _parser():
  parser = _Parser(
    prog='ldm-jax-privacy',
    description='Noise multiplier for a privacy budget, or the epsilon of a noise '
    'multiplier, for patient-level DP-SGD with Poisson sampling.',
  )
  parser.add_argument('--epsilon', type=float, help='budget to calibrate the noise for')
  parser.add_argument(
    '--noise_multiplier', type=float, help='noise deviation over the clip norm'
  )
  parser.add_argument(
    '--delta', type=float, required=True, help='below 1/num_patients, such as 1e-5'
  )
  parser.add_argument(
    '--num_patients', type=int, required=True, help='public size of the private cohort'
  )
  parser.add_argument(
    '--batch_size', type=float, required=True, help='expected patients per step'
  )
  parser.add_argument('--steps', type=int, required=True, help='number of noisy steps')
  parser.add_argument('--json', action='store_true', help='print one JSON object')
  return parser


if __name__ == '__main__':
  sys.exit(main())
