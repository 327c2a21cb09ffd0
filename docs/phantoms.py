"""Draws docs/phantoms.png: python docs/phantoms.py [FILE]."""

import pathlib
import sys

import numpy as np

from ldm_jax.data.phantom.brain import cohort as brain
from ldm_jax.data.phantom.chest import cohort as chest
from ldm_jax.report import figures

STATES = ((30.0, 'CN'), (60.0, 'CN'), (85.0, 'CN'), (75.0, 'MCI'), (75.0, 'AD'))
FILMS = (
  {'cardiothoracic_ratio': 0.42},
  {'cardiothoracic_ratio': 0.6},
  {'effusion': 0.1},
  {'effusion': 0.35},
  {'consolidation': 'yes'},
)
HEALTHY = {'cardiothoracic_ratio': 0.45, 'effusion': 0.0, 'consolidation': 'no'}


def heads():
  """One subject, five states: an axial row, a coronal row, what changed."""
  subject, attributes = brain.sample_subject(1, 3, 'public')
  images = [
    brain.render(subject, {**attributes, 'age': age, 'diagnosis': diagnosis}).image
    for age, diagnosis in STATES
  ]
  axial = [image[30, ::-1] for image in images]
  coronal = [image[::-1, 38] for image in images]
  change = [0.5 + (image[30, ::-1] - axial[0]) for image in images]
  # The patient's left on the right side, as radiologists look at it.
  return [
    np.hstack([part[:, ::-1] for part in row]) for row in (axial, coronal, change)
  ]


def films():
  """One patient, five states."""
  patient, attributes = chest.sample_patient(1, 2, 'public')
  attributes = {**attributes, **HEALTHY, 'sex': 'M'}
  detector = chest.Detector((1, 128, 128))
  return np.hstack(
    [chest.render(patient, {**attributes, **film}, detector).image[0] for film in FILMS]
  )


if __name__ == '__main__':
  target = sys.argv[1] if len(sys.argv) > 1 else 'docs/phantoms.png'
  rows = [np.kron(row, np.ones((2, 2))) for row in heads()] + [films()]
  # 64 shades: the noise would triple the file.
  pixels = np.round(63 * np.clip(np.vstack(rows), 0, 1)) * 4
  pathlib.Path(target).write_bytes(figures.encode_png(pixels.astype(np.uint8)))
