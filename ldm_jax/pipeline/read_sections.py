"""The sections of a config that decide what a stage makes, for its fingerprint.

Keys of what is switched off are left out: they change nothing, and what was made before
they existed is not made again.
"""

from __future__ import annotations

from collections.abc import Sequence

from ldm_jax.training import drift_setting
from ldm_jax.types import Config

# What a model that draws label maps depends on, beside its autoencoder.
LABELS = ('data.labels', 'evaluate.labels', 'evaluate.label_names')


def of(reads: Sequence[str], name: str, config: Config) -> tuple[str, ...]:
  """The sections as `workfolder.fingerprint` takes them.

  Args:
    reads: of the stage, see `runner.Stage`.
    name: of the stage.
    config: of the run.
  """
  sections = tuple(reads)
  if config.data.labels and {'autoencoder', 'autoencoder.model'} & set(sections):
    sections = (*sections, *LABELS)
  elif 'autoencoder' in sections:
    sections = (*sections, '-autoencoder.labels')
  if 'mask' in config.diffusion.conditioner.by:
    if {'diffusion', 'diffusion.conditioner'} & set(sections):
      sections = (*sections, 'evaluate.labels')
  else:
    unread = {'diffusion': '-diffusion.mask', 'sample': '-sample.masks'}
    sections = (*sections, *(unread[part] for part in reads if part in unread))
  if 'sample' in reads and not config.sample.within_patient:
    sections = (*sections, '-sample.within_patient')
  if name == 'prepare':  # what is done with labels is no part of it
    return (*sections, '-data.labels')
  if name == 'evaluate':
    used = {
      'utility': config.evaluate.utility.use,
      'groups': config.evaluate.groups.by,
      'within_patient': config.sample.within_patient,
      'label_names': config.data.labels or config.evaluate.utility.use,
    }
    return (*sections, *(f'-evaluate.{key}' for key in used if not used[key]))
  if name == 'diffusion' and config.diffusion.weights:
    return (*sections, 'adapt.privacy.releases.pretraining', 'adapt.privacy.delta')
  return (*sections, *drift_setting.unread(config)) if name == 'adapt' else sections
