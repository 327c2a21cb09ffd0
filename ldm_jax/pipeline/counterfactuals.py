"""The stage `counterfactual`: whose scans are changed, and pictures of the change."""

from typing import Any

from ldm_jax import atomic, processes
from ldm_jax.data import folder_scans
from ldm_jax.pipeline.run import Run
from ldm_jax.report import figures
from ldm_jax.synthesis import write_counterfactuals, write_forecasts


def change(run: Run) -> dict[str, Any]:
  """Changes attributes of given scans and writes counterfactuals/.

  Raises:
    ValueError: a source that is neither a prepared cohort nor a folder of scans.
  """
  config, work, section = run.config, run.work, run.config.counterfactual
  if not section.num or not len(section.set):
    return {'volumes': 0}
  system, key = run.system, run.key('counterfactual')
  split = _source(run)
  summary = write_counterfactuals.write_counterfactuals(
    config, work, system, split, key
  )
  processes.first(lambda: _draw(work))
  forecasts = write_forecasts.write_forecasts(
    config, work, system, run.splits.get('test'), key
  )
  return {**summary, 'forecasts': forecasts > 0}


def _source(run):
  section, found = run.config.counterfactual, run.splits
  if section.source in found:
    return found[section.source]
  folder_scans.check(section.source, found)
  cohort = folder_scans.read(
    section.source, run.system.schema, section.options.to_dict()
  )
  return folder_scans.Scans(cohort, run.spec)


def _draw(work):
  """A montage of every case, beside its volumes."""
  kept = work.read_arrays(write_counterfactuals.COUNTERFACTUALS)
  for number, name in enumerate(kept['ids']):
    rows = [kept[kind][number, ..., 0] for kind in ('source', 'counterfactual')]
    truth = kept['truth'][number, ..., 0] if 'truth' in kept else None
    picture, _ = figures.counterfactual(*rows, rows[1] - rows[0], truth=truth)
    atomic.write_bytes(work.path('counterfactuals', f'{name}_montage.png'), picture)
