"""What the autoencoder loses: report/autoencoder.html, before anything builds on it."""

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ldm_jax.report import evidence, galleries, page, tables
from ldm_jax.report.wording import number

SECTIONS = {
  'pictures': 'Reconstructions',
  'reconstruction': 'Fidelity',
  'latent': 'Latent',
  'training': 'Training',
  'config': 'Settings',
}
NUM_PICTURES = 8


def write(
  path: str | os.PathLike,
  name: str,
  settings: Mapping,
  figures: Mapping,
  volumes: tuple[np.ndarray, np.ndarray],
  events: Iterable[Mapping],
  banner: str = '',
  spacing: Sequence[float] | None = None,
) -> pathlib.Path:
  """Writes the page and returns its path.

  Args:
    path: file to write; its folder is created.
    name: of the config.
    settings: config.autoencoder as a plain dict.
    figures: dict reconstruction, latent, alarms, codebook (see
      `fit_autoencoder.report`).
    volumes: real and reconstructed (n,d,h,w), of public patients.
    events: of the log.
    banner: sentence in red above everything, '' for none.
    spacing: (3,) mm of a voxel (d,h,w); None for cubes.
  """
  real, reconstructed = (v[:NUM_PICTURES] for v in volumes)
  latent = figures['latent']
  channels = enumerate(zip(latent['mean'], latent['std'], strict=True))
  log = [e for e in events if e.get('stage') in ('perceptual', 'autoencoder')]
  html = page.render(
    'autoencoder.html',
    title=f'{name}: autoencoder',
    banner=banner,
    sections=SECTIONS,
    samples=galleries.samples({'real': real, 'reconstructed': reconstructed}, spacing),
    reconstruction=evidence.reconstruction(figures['reconstruction']),
    channels=[tables.row(i, map(number, statistics)) for i, statistics in channels],
    codebook=figures.get('codebook'),
    alarms=figures['alarms'],
    training=evidence.training(log),
    config=page.settings(settings),
  )
  return page.write(path, html)
