"""The section `export`: default values and rules."""

from typing import Any

from ldm_jax.config.parsing import require, require_choices
from ldm_jax.types import Config

CHOICES = {
  'export.dtype': ('float32', 'bfloat16'),
  'export.modality': ('', 'MR', 'CT', 'OT'),
}


def section() -> dict[str, Any]:
  """The keys of `export`: what the shared folder says and how it is stored."""
  return {
    # True exports a model that protects nobody (no privacy, or a fixed seed), and says
    # so on every page of it.
    'unprotected': False,
    # Of the numbers in model.safetensors; 'bfloat16' halves the file and rounds them.
    'dtype': 'float32',
    # BIDS suffix of the samples, such as 'T1w'. '' is that of the layout, where it has
    # one; otherwise the samples are a plain folder with participants.tsv.
    'bids_suffix': '',
    # Whether the scans show the brain alone, which BIDS wants to know of such images.
    'skull_stripped': False,
    # Also writes the samples as DICOM, a series for each, marked SYNTHETIC.
    'dicom': False,
    # Of the scans, for DICOM: 'MR', 'CT' or 'OT' (other). '' is that of the layout or
    # the BIDS suffix, where it is known, otherwise 'OT'.
    'modality': '',
    # Also exports the edits of public scans, whose owners must allow that edits of them
    # are passed on. Edits of other scans are never exported.
    'counterfactuals': False,
  }


def check(config: Config) -> None:
  """Raises ValueError for invalid values of `config.export`."""
  require_choices(config, CHOICES)
  source = config.counterfactual.source
  require(
    not config.export.counterfactuals or source == 'public',
    'counterfactual.source',
    source,
    "'public' where export.counterfactuals is set: an edit of a scan is a scan of that "
    'patient',
  )
  key, value = 'export.bids_suffix', config.export.bids_suffix
  require(not value or value.isalnum(), key, value, "letters and digits, or ''")
