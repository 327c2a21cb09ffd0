"""Laws of the studio's samplers: the model's own volumes, compiled once."""

import dataclasses

import numpy as np
import pytest

import ldm_jax
from ldm_jax.diffusion.drift import Drift
from ldm_jax.studio import drawing

VALUES = {'AGE': 60, 'SEX': 'F'}


@pytest.fixture(scope='module')
def model(exported):
  return ldm_jax.load(exported / 'shareable.zip')


@pytest.fixture(scope='module')
def samplers(model):
  return drawing.Samplers(model)


def test_the_full_sampler_draws_what_the_model_samples(model, samplers):
  chosen = drawing.settings(model, {'seed': 3, 'guidance': 1.5})
  assert chosen.steps == model.config.sample.steps
  drawn = samplers.draw(VALUES, chosen)
  sampled = model.sample(1, seed=3, guidance=1.5, rest='unknown', **VALUES)[0]
  assert np.allclose(drawn, sampled, atol=1e-5)


def test_guidance_and_drift_are_changed_without_compiling_again(model, monkeypatch):
  drifting = dataclasses.replace(model.system, drift=Drift(0.3))
  own = dataclasses.replace(model, system=drifting, _compiled={})
  samplers, made = drawing.Samplers(own), []
  compile_one = drawing._sampler
  monkeypatch.setattr(
    drawing, '_sampler', lambda *key: made.append(key) or compile_one(*key)
  )
  settings = [
    {'guidance': 2.0},
    {'guidance': 3.0},
    {'guidance': 2.0, 'drift': 2.0},
  ]
  drawn = [
    samplers.draw(VALUES, drawing.settings(own, {'quick': True, **each}))
    for each in settings
  ]
  assert len(made) == 1
  assert all(x.shape == model.spec.shape and x.min() >= 0 for x in drawn)
  for other in drawn[1:]:
    assert np.abs(other - drawn[0]).max() > 1e-4


def test_what_the_page_needs_first_is_compiled_first(model, samplers):
  first, second, *_ = samplers.to_compile()
  assert first.steps is None and second.steps == model.config.sample.steps


def test_a_model_without_a_drift_can_be_drawn_from_with_one(model, samplers):
  assert model.system.drift is None
  drawn = [
    samplers.draw(VALUES, drawing.settings(model, {'seed': 3, 'drift': drift}))
    for drift in (0.0, 0.2)
  ]
  plain = model.sample(1, seed=3, rest='unknown', **VALUES)[0]
  assert np.allclose(drawn[0], plain, atol=1e-5)
  assert np.abs(drawn[1] - plain).max() > 1e-4


def test_a_drift_that_excludes_a_solver_gets_another_quick_one(model):
  system = dataclasses.replace(model.system, drift=Drift(0.1, 'posterior_constant'))
  assert drawing._quick_solver(model.system) == 'unipc'
  assert drawing._quick_solver(system) == 'dpmpp_2m'


@pytest.mark.parametrize(
  ('plain', 'says'),
  [
    ({'steps': 7}, 'steps is 7, expected one of 4, 8'),
    ({'steps': 1e9}, 'steps is 1e'),
    ({'steps': 4.5}, 'a whole number'),
    ({'guidance': 99}, 'guidance is 99, expected 0 to 8'),
    ({'guidance': float('nan')}, 'guidance is nan'),
    ({'guidance': True}, 'guidance is True'),
    ({'drift': -1}, 'drift is -1, expected -0.3 to 0.3'),
    ({'seed': -1}, 'seed is -1'),
    ({'seed': '1'}, "seed is '1', expected a whole number"),
  ],
)
def test_settings_that_the_page_does_not_offer_are_refused(model, plain, says):
  with pytest.raises(ValueError, match=says):
    drawing.settings(model, plain)
