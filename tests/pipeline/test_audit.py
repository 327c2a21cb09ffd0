"""Laws of the audit of a config's own step: it holds, costs nothing, and can fail.

That broken steps are caught is shown in tests/privacy/test_broken.py.
"""

import copy
import json
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldm_jax import main, prng
from ldm_jax.config.defaults import defaults
from ldm_jax.config.parsing import override
from ldm_jax.pipeline import audit
from ldm_jax.privacy import canaries, checks, clipping, mechanisms, secret_key
from ldm_jax.training.mesh import make_mesh
from ldm_jax.workfolder import WorkFolder

MICRO = pathlib.Path(__file__).parents[1] / 'micro.py'
# Two devices, so that what rests on one does not meet what rests on both unnoticed.
FEW = (
  '--config.audit.num_canaries=8',
  '--config.audit.participations=2',
  '--config.mesh.data=2',
)
SOUND = {
  'claim': {'noise_multiplier': 1.2},
  'confidence': 0.95,
  'gradient_canaries': {
    'epsilon_claimed': 6.0,
    'epsilon_low': 4.0,
    'one_run': 1.0,
    'participations': 4,
    'noise': {'value': 1.19, 'low': 1.1, 'high': 1.3},
  },
  'loss_canaries': {
    'epsilon_claimed': 9.0,
    'epsilon_low': 0.0,
    'participations': 8,
    'patients': 96,
  },
  'influence': {'largest': 1.0002, 'limit': 1.001, 'patients': 4},
}

SECRET = secret_key.new_noise_key(0)


def run(work, *flags):
  where = [f'--config={MICRO}', f'--workdir={work}', '--stages=audit']
  return main.main([*where, *FEW, *flags])


def test_the_step_of_a_config_holds_its_claim_and_nothing_is_spent(
  finished, tmp_path, capsys
):
  work = shutil.copytree(finished, tmp_path / 'work')
  ledger = work / 'store' / 'ledger-private.jsonl'
  before = ledger.read_bytes(), (work / 'privacy.json').read_bytes()
  assert run(work) == 0
  found = json.loads((work / 'audit.json').read_text())
  assert found['holds'] is True
  gradient, loss = found['gradient_canaries'], found['loss_canaries']
  assert gradient['epsilon_low'] <= gradient['epsilon_claimed']
  noise, sigma = gradient['noise'], found['claim']['noise_multiplier']
  assert noise['low'] <= sigma <= noise['high']
  assert loss['epsilon_low'] <= loss['epsilon_claimed']
  assert found['influence']['largest'] == pytest.approx(1, abs=4e-3)
  # The noise that trained, not what an empty ledger would ask for.
  releases = json.loads((work / 'privacy.json').read_text())['releases']
  (model,) = (each for each in releases if each['name'].startswith('adapt:'))
  assert sigma == model['noise_multiplier']
  assert found['claim']['epsilon'] == pytest.approx(model['epsilon'])
  assert 'gradient canaries' in capsys.readouterr().out
  assert (ledger.read_bytes(), (work / 'privacy.json').read_bytes()) == before
  assert run(work, '--config.adapt.privacy=None') == 2
  assert 'adapt.privacy is None' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('part', 'entry', 'value'),
  [
    ('gradient_canaries', 'epsilon_low', math.inf),
    ('gradient_canaries', 'noise', {'value': 0.6, 'low': 0.5, 'high': 0.7}),
    ('loss_canaries', 'epsilon_low', 9.1),
    ('influence', 'largest', 1.2),
  ],
)
def test_any_finding_against_the_claim_ends_in_an_error_and_is_written(
  tmp_path, part, entry, value
):
  work, found = WorkFolder(tmp_path), copy.deepcopy(SOUND)
  assert audit.conclude(found, work)['holds'] is True
  found[part][entry] = value
  with pytest.raises(RuntimeError, match='does not keep its claim'):
    audit.conclude(found, work)
  assert json.loads((tmp_path / 'audit.json').read_text())['holds'] is False


def stand_of(draws=prng.numbered, gradients='auto', num_canaries=1, **scheme):
  """The stand of a toy loss: three patients of 2, 1 and 5 volumes, and canaries.

  The noise of a volume comes from draws(key, number of rows of the arrays).
  """

  def loss(trained, frozen, example, key):
    keys, present = draws(key, len(example['present'])), example['present']
    eps = jax.vmap(lambda key: jax.random.normal(key, (64,)))(keys)
    each = (eps + example['z']) @ trained['w'] + trained['b'] * trained['c']
    return jnp.sum(each * present) / present.sum()

  stand = audit._Stand.__new__(audit._Stand)
  present = np.arange(5) < np.array([[2], [1], [5]])
  z = np.random.default_rng(0).normal(size=(3, 5, 64)).astype(np.float32)
  stand.config = override(defaults(), {'audit.num_canaries': str(num_canaries)})
  stand.privacy = stand.config.adapt.privacy
  stand.privacy.chunk_size, stand.privacy.microbatch = 4, 1
  stand.privacy.gradients = gradients
  stand.mesh, stand.key, stand.num_patients = make_mesh(1), prng.key(0), 3
  ones = {'w': (64,), 'b': (), 'c': ()}
  stand.trained = {name: np.ones(shape, np.float32) for name, shape in ones.items()}
  stand.loss, stand.frozen = loss, {}
  stand.examples = canaries.appended({'z': z, 'present': present}, num_canaries)
  common = {'batch_size': 4, 'steps': 4, 'clip_norm': 0.5, 'noise_multiplier': 0.1}
  stand.scheme = mechanisms.Poisson(num_patients=4, **common, **scheme)
  stand.sigma = 0.1
  stand.plain = optax.sgd(stand.scheme.expected_batch / stand.scheme.clip_norm)
  return stand


def test_draws_that_depend_on_who_has_most_volumes_are_found():
  with jax.threefry_partitionable(False):
    broken, sound = (
      stand_of(draws).influence(SECRET) for draws in (jax.random.split, prng.numbered)
    )
  assert broken['largest'] > 1.2 * broken['limit']
  assert 0.99 < sound['largest'] <= sound['limit']


def test_the_step_takes_its_gradients_as_the_config_says():
  with pytest.raises(ValueError, match=r'adapt\.privacy\.gradients'):
    stand_of(gradients='sideways').influence(SECRET)


@pytest.mark.parametrize('rule', checks.CLIPPING)
def test_a_canary_reaches_the_clip_norm_by_every_rule(rule):
  stand = stand_of(num_canaries=6, clipping=rule)
  nobody, included = np.zeros(3, bool), np.arange(6) < 4
  final, updates = stand.train(nobody, included, 4, 1, SECRET)
  assert {path: leaf.shape for path, leaf in final.items()} == {
    path: leaf.shape for path, leaf in stand.trained.items()
  }
  reach = math.sqrt(1 - clipping.BIT_SHARE**2) if rule == 'adaptive' else 1.0
  drawn = updates[::2, :4]
  assert drawn.mean() == pytest.approx(reach, abs=4 * 0.1 / math.sqrt(drawn.size))
  assert updates[1::2].mean() == pytest.approx(0, abs=0.1)
  assert updates[:, 6:].std() == pytest.approx(0.1, rel=0.05)
