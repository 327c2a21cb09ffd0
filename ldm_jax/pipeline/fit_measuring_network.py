"""Which cohort the measuring network of `evaluate` learns from, and its learning."""

from collections.abc import Mapping

from ldm_jax.config.parsing import digest, to_plain
from ldm_jax.data.store.split import Split
from ldm_jax.evaluation import measuring_network
from ldm_jax.pipeline.run import Run
from ldm_jax.training import networks


def check(found: Mapping[str, Split]) -> None:
  """Refuses, before anything is trained, a cohort that cannot teach to measure.

  Raises:
    ValueError: scans of data.measuring without labels.
  """
  if 'measuring' in found and not found['measuring'].is_labelled:
    raise ValueError(
      'Not every scan of data.measuring has labels, which the measuring network learns '
      "from. Name a labelled public cohort, or leave data.measuring.layout=''."
    )


def network(
  run: Run,
) -> measuring_network.MeasuringNetwork | measuring_network.PooledLatents:
  """The measuring network, learned once from public volumes and stored.

  Without labels the encoder of the trained system takes its place.
  """
  config, found = run.config, run.splits
  split = found.get('measuring', found.get('public'))
  if split is None or not split.is_labelled:
    return measuring_network.PooledLatents(run.system.encode, run.autoencoder.params)
  module = networks.segmenter(config)
  section = config.evaluate.segmenter
  mark = digest(
    [split.digest(), to_plain(section), config.evaluate.labels, config.seed]
  )
  key = run.key('measurement')

  def learn():
    return measuring_network.fit(
      module,
      networks.initialise(module, key, split.volumes([0])),
      split,
      section,
      config.evaluate.labels,
      mesh=run.mesh,
      key=key,
      seed=config.seed,
      run=run.loop_arguments('measurement'),
    )

  params = run.learned_once('measurement', mark, learn)
  return measuring_network.MeasuringNetwork(module, params)
