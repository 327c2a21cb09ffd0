"""Draws docs/quickstart.png: python docs/quickstart.py WORKDIR [FILE].

Above, phantom patients that no model has seen, of the cohort that `evaluate` compares
the samples with; below, synthetic ones of the run in WORKDIR. One column a patient,
four slices. For runs on phantoms.
"""

import pathlib
import sys

import numpy as np

from ldm_jax.config import loading
from ldm_jax.evaluation import assess
from ldm_jax.pipeline.run import Run
from ldm_jax.report import figures
from ldm_jax.synthesis import write_samples

NUM_COLUMNS, NUM_SLICES, ENLARGED = 14, 4, 2


def sheet(volumes):
  """(n,d,h,w) -> one picture, a column a volume."""
  depth = volumes.shape[1]
  slices = np.linspace(0, depth - 1, NUM_SLICES + 2).round().astype(int)[1:-1]
  columns = [np.vstack(list(volume[slices])) for volume in volumes]
  return np.kron(np.hstack(columns), np.ones((ENLARGED, ENLARGED)))


if __name__ == '__main__':
  workdir = pathlib.Path(sys.argv[1])
  target = sys.argv[2] if len(sys.argv) > 2 else 'docs/quickstart.png'
  run = Run.open(loading.read(workdir / 'config.json'), workdir)
  layouts = {run.config.data[name].layout for name in ('private', 'test')} - {''}
  if not all(layout.startswith('phantom') for layout in layouts):
    sys.exit(f'{workdir} is no run on phantoms; its real patients must not be shown.')
  cohorts = assess.REFERENCES[run.config.sample.model]
  name = next(name for name in cohorts if name in run.splits)
  split = run.splits[name]
  # One scan a patient.
  _, first = np.unique(split.patients, return_index=True)
  synthetic = run.work.read_arrays(write_samples.SAMPLES)['volumes'][..., 0]
  num = min(NUM_COLUMNS, len(first), len(synthetic))
  real = sheet(split.volumes(first[:num])[..., 0])
  gap = np.ones((6, real.shape[1]))
  picture = np.vstack([real, gap, sheet(np.asarray(synthetic[:num], float))])
  pixels = np.round(63 * np.clip(picture, 0, 1)) * 4
  pathlib.Path(target).write_bytes(figures.encode_png(pixels.astype(np.uint8)))
