"""Which cohort the measuring network of `evaluate` learns from, and its learning."""

from ldm_jax.config.parsing import digest, to_plain
from ldm_jax.evaluation import measuring_network
from ldm_jax.pipeline import inputs
from ldm_jax.training import checkpoint, networks
from ldm_jax.training.mesh import make_mesh


def check(found):
  """Refuses, before anything is trained, a cohort that cannot teach to measure.

  Raises:
    ValueError: scans of data.measuring without labels.
  """
  if 'measuring' in found and not found['measuring'].is_labelled:
    raise ValueError(
      'Not every scan of data.measuring has labels, which the measuring network learns '
      "from. Name a labelled public cohort, or leave data.measuring.layout=''."
    )


def network(config, work, system, found):
  """The measuring network, learned once from public volumes and kept.

  Args:
    system: `synthesis.system.System`; its encoder stands in without labels.
    found: name -> Split of the prepared cohorts.
  """
  split = found.get('measuring', found.get('public'))
  weights = checkpoint.load_params(work.checkpoints('autoencoder'))
  if split is None or not split.is_labelled:
    return measuring_network.PooledLatents(system.encode, weights)
  module = networks.segmenter(config)
  section = config.evaluate.segmenter
  mark = digest(
    [split.digest(), to_plain(section), config.evaluate.labels, config.seed]
  )
  key = inputs.key(config, 'measurement')

  def learn():
    return measuring_network.fit(
      module,
      networks.initialise(module, key, split.volumes([0])),
      split,
      section,
      config.evaluate.labels,
      mesh=make_mesh(**config.mesh),
      key=key,
      seed=config.seed,
      run=inputs.loop_arguments(config, work, 'measurement'),
    )

  params = inputs.learned_once(work, 'measurement', mark, learn)
  return measuring_network.MeasuringNetwork(module, params)
