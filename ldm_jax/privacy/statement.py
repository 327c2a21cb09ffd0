"""The privacy statement: releases -> the dict that privacy.json holds.

Any reader can recompute epsilon from it: each release carries its mechanism, noise
multiplier (noise deviation over the clip norm), sampling probability and steps.
"""

import importlib.metadata
import math
import pathlib
import subprocess

from ldm_jax.data import atomic
from ldm_jax.privacy import accounting, checks

ASSUMPTIONS = (
  'the unit is the patient: all volumes of a patient enter one clipped contribution',
  'the number of private patients is public and fixed before training',
  'each patient is drawn independently in each step, and the draws stay secret',
  'the noise key is unpredictable and is known to nobody who sees the results',
  'the autoencoder, its latent scale and the attribute ranges come from public data or '
  'constants',
  'the ledger file is kept with the data and lists every release on these patients',
  'a patient appears in the cohort under one identifier only',
)
NOT_COVERED = (
  'patients of the public cohort: their data have no protection',
  'evaluation figures marked internal, which look at private data',
  'the choice of hyper-parameters, where earlier private runs outside this ledger '
  'guided it',
  'floating point: the noise is float32, on a finite grid, and ends near 5.4 standard '
  'deviations',
  'the generator threefry2x32, which is not certified as cryptographic',
  'running time, memory and power of the machine while it trains',
  'the work folder itself (store, checkpoints, key): whoever reads it reads the data',
)
RELEASE_FIELDS = (
  'name',
  'mechanism',
  'noise_multiplier',
  'sampling_probability',
  'steps',
  'clip_norm',
)


def build(
  releases,
  *,
  delta,
  num_patients,
  randomness,
  config_sha256,
  assumptions=(),
  not_covered=(),
):
  """Makes the privacy statement of one private cohort.

  Args:
    releases: list of release dicts, all that ever touched the cohort (the ledger's).
    delta: delta of the total, below 1 / num_patients.
    num_patients: public number of private patients.
    randomness: sentence of `mechanism.describe_randomness`.
    config_sha256: hash of the run's config, hexadecimal.
    assumptions, not_covered: sentences of this run, added to the standing ones.

  Returns:
    A JSON-able dict with the keys of the contract; 'epsilon' is the PLD figure. An
    infinite epsilon (clipping without noise) is the text 'inf': JSON has no infinity.

  Raises:
    ValueError: releases exist and delta is not in (0, 1 / num_patients).
  """
  if releases:
    checks.check_delta(delta, num_patients)
  events = [accounting.event(release) for release in releases]
  total = accounting.epsilon(events, delta) if events else {'pld': 0.0, 'rdp': 0.0}
  entries = [
    {
      **{field: release.get(field) for field in RELEASE_FIELDS},
      'epsilon': finite(accounting.epsilon([event], delta)['pld']),
    }
    for release, event in zip(releases, events, strict=True)
  ]
  return {
    'unit': 'patient',
    'relation': accounting.RELATION_NAME,
    'epsilon': finite(total['pld']),
    'delta': delta,
    'num_patients': num_patients,
    'releases': entries,
    'accountants': {name: finite(value) for name, value in total.items()},
    'randomness': randomness,
    'assumptions': [*ASSUMPTIONS, *assumptions],
    'not_covered': [*NOT_COVERED, *not_covered],
    'code_version': code_version(),
    'config_sha256': config_sha256,
  }


def write(path, statement):
  """Writes the statement atomically as strict JSON.

  Raises:
    OSError: the file cannot be written; its old content is intact.
  """
  atomic.write_json(path, statement)


def finite(value):
  """The number itself, or the text 'inf', which strict JSON can hold."""
  return 'inf' if math.isinf(value) else float(value)


def code_version():
  """The package's version, with the commit where it runs from a git checkout."""
  try:
    version = importlib.metadata.version('ldm-jax')
  except importlib.metadata.PackageNotFoundError:
    version = 'unknown'
  root = pathlib.Path(__file__).resolve().parent.parent.parent
  if not (root / '.git').exists():
    return version
  describe = ['git', '-C', str(root), 'describe', '--always', '--dirty', '--abbrev=12']
  try:
    done = subprocess.run(describe, capture_output=True, text=True, timeout=10)
  except (OSError, subprocess.TimeoutExpired):
    return version
  return f'{version}+{done.stdout.strip()}' if done.returncode == 0 else version
