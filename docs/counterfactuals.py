"""Draws docs/counterfactuals.png: python docs/counterfactuals.py WORKDIR [FILE].

WORKDIR is one in which the stage counterfactual has changed phantoms
(docs/drift-tables.md has the command). A column is a subject; the rows are source,
counterfactual, truth, what the counterfactual changed and what the truth changes (grey:
nothing; twice as much contrast), first axial, then coronal, through the middle.
"""

import pathlib
import sys

import numpy as np

from ldm_jax.report import figures
from ldm_jax.synthesis.write_counterfactuals import COUNTERFACTUALS

NUM_CASES = 8
ZOOM = 3


def rows(kept, slicing):
  """Rows of (h, w) tiles of the chosen cases, [0, 1]: (5 h, cases w)."""
  source, changed, truth = (
    kept[name][:NUM_CASES, ..., 0] for name in ('source', 'counterfactual', 'truth')
  )
  changes = [0.5 + 2 * (each - source) for each in (changed, truth)]
  volumes = [source, changed, truth, *changes]
  return np.vstack([np.hstack([slicing(v) for v in each]) for each in volumes])


def main(workdir, target='docs/counterfactuals.png'):
  """Reads what the stage kept and writes the picture."""
  kept = np.load(pathlib.Path(workdir, 'store', COUNTERFACTUALS))
  depth, height = kept['source'].shape[1:3]
  # Anterior up, and superior up; the patient's left on the right side.
  axial = rows(kept, lambda v: v[depth // 2, ::-1, ::-1])
  coronal = rows(kept, lambda v: v[::-1, height // 2, ::-1])
  pixels = np.kron(np.vstack([axial, coronal]), np.ones((ZOOM, ZOOM)))
  # 64 shades: the noise would triple the file.
  pixels = np.round(63 * np.clip(pixels, 0, 1)) * 4
  pathlib.Path(target).write_bytes(figures.encode_png(pixels.astype(np.uint8)))


if __name__ == '__main__':
  if len(sys.argv) < 2:
    sys.exit(__doc__)
  main(*sys.argv[1:])
