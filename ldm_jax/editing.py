"""The stage `counterfactual`: whose scans are changed, and pictures of the change."""

from ldm_jax import staging
from ldm_jax.data import scans
from ldm_jax.report import figures
from ldm_jax.synthesis import edited


def run(config, work):
  """Changes attributes of given scans and writes counterfactuals/.

  Raises:
    ValueError: a source that is neither a prepared cohort nor a folder of scans.
  """
  section = config.counterfactual
  if not section.num or not len(section.set):
    return {'volumes': 0}
  system, found = staging.system(config, work)
  split = _source(config, system.schema, found)
  key = staging.key(config, 'counterfactual')
  summary = edited.write_counterfactuals(config, work, system, split, key)
  _draw(work)
  return summary


def _source(config, schema, found):
  section = config.counterfactual
  if section.source in found:
    return found[section.source]
  scans.check(section.source, found)
  cohort = scans.read(section.source, schema, section.options.to_dict())
  return scans.Scans(cohort, staging.spec(config))


def _draw(work):
  """A montage of every case, beside its volumes."""
  kept = work.read_arrays(edited.COUNTERFACTUALS)
  for number, name in enumerate(kept['ids']):
    rows = [kept[kind][number, ..., 0] for kind in ('source', 'counterfactual')]
    truth = kept['truth'][number, ..., 0] if 'truth' in kept else None
    picture, _ = figures.counterfactual(*rows, rows[1] - rows[0], truth=truth)
    path = work.path('counterfactuals', f'{name}_montage.png')
    path.write_bytes(picture)
