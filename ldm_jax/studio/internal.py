"""A work folder as a model of the studio: marked internal, for the data's owner."""

from __future__ import annotations

import os
import pathlib

from ldm_jax.config import loading
from ldm_jax.data.cohorts.attributes import labelled
from ldm_jax.pipeline import export
from ldm_jax.pipeline.run import Run
from ldm_jax.sharing.shared_model import SharedModel
from ldm_jax.synthesis import requests, write_samples

WARNING = (
  'INTERNAL: this page draws from a work folder beside private scans. Nothing of it '
  'may leave; export the model (--stages=export) to show it to others.'
)


def open_workdir(workdir: str | os.PathLike) -> SharedModel:
  """The model of a finished run, with its own samples' settings.

  Raises:
    ValueError: no work folder, or a stage has not finished.
  """
  config = loading.read(pathlib.Path(workdir, 'config.json'))
  run = Run.open(config, workdir)
  privacy = run.work.read_json('privacy.json') or {}
  released = run.work.read_json(*requests.PRIOR) or {}
  samples = run.work.read_arrays(write_samples.SAMPLES) or {}
  reason = export.unprotected_because(privacy)
  return SharedModel(
    about={
      **export.described(run, reason),
      'internal': True,
      'warning': f'{WARNING} NOT PRIVATE: {reason}.' if reason else WARNING,
      'suffix': '',
    },
    config=config,
    schema=labelled(run.schema),
    privacy=privacy,
    prior=released.get('prior'),
    asked=samples.get('requests'),
    spec=run.spec,
    affine=run.sample_affine,
    stack=export.is_stack(config.data),
    system=run.system,
  )
