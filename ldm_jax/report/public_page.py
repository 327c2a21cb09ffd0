"""The report and the model card as they may leave: without what is marked internal.

No scan of anybody is shown, also no public one, whose licence may forbid it: pictures
are of synthetic volumes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.data.cohorts import roles

# Stages whose losses are of public patients.
PUBLIC_STAGES = ('autoencoder', 'diffusion')
LOSSES = ('stage', 'step', 'loss')
PICTURES = ('synthetic', 'labels', 'patients', 'sweeps')


def public(
  content: Mapping[str, Any],
  *,
  config: Mapping[str, Any],
  privacy: Mapping[str, Any],
  warning: str,
) -> dict[str, Any]:
  """The content of `index_page.html` and `model_card.markdown` that may leave.

  Args:
    content: of `content.gather`.
    config: the settings that are shown in place of the run's.
    privacy: the statement as it is shared.
    warning: sentence above everything; '' for a model that is protected.
  """
  metrics = without_internal(content.get('metrics') or {})
  images = content.get('images') or {}
  hidden = images.get('internal') or ()
  measured = metrics.get('control') or {}
  return {
    'title': content.get('title'),
    'banner': warning or content.get('banner') or '',
    'config': dict(config),
    'requests': content.get('requests'),
    'spacing': content.get('spacing'),
    'label_names': content.get('label_names'),
    'leaves': True,
    'models': {
      name: model
      for name, model in (content.get('models') or {}).items()
      if name == 'samples'
    },
    'metrics': metrics,
    'privacy': dict(privacy),
    'log': [
      {key: event[key] for key in LOSSES if key in event}
      for event in content.get('log') or ()
      if event.get('stage') in PUBLIC_STAGES and 'step' in event
    ],
    'images': {
      name: images[name] for name in PICTURES if name in images and name not in hidden
    },
    'control': {
      name: pair
      for name, pair in (content.get('control') or {}).items()
      if name in measured
    },
  }


def without_internal(entry: Any) -> Any:
  """Nested figures without those that read a cohort which is not public.

  Numbers beside such a figure, as how many patients there were, go with it.
  """
  if isinstance(entry, list | tuple):
    return [without_internal(value) for value in entry if not is_internal(value)]
  if not isinstance(entry, Mapping):
    return entry
  kept = {
    key: without_internal(value)
    for key, value in entry.items()
    if not is_internal(value)
  }
  if len(kept) < len(entry):
    kept = {key: value for key, value in kept.items() if isinstance(value, Mapping)}
  return {key: value for key, value in kept.items() if value != {} or not entry[key]}


def is_internal(entry: Any) -> bool:
  """Whether a figure is marked internal, or names a cohort that is not public."""
  if not isinstance(entry, Mapping):
    return False
  return bool(entry.get('internal')) or roles.is_internal(entry.get('reads') or ())
