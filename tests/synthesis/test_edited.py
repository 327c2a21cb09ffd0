"""Counterfactuals are made of the volumes that a change fits."""

import types

import numpy as np
import pytest

from ldm_jax.data.attributes import Attribute, Schema
from ldm_jax.synthesis import edited

SCHEMA = Schema((Attribute('AGE', low=20.0, high=90.0),))


def split_of(*ages):
  vectors = np.stack([SCHEMA.encode({'AGE': age}) for age in ages])
  return types.SimpleNamespace(attributes=vectors, schema=SCHEMA)


def test_volumes_that_the_change_does_not_fit_are_passed_over():
  chosen, new = edited._changeable(split_of(85, 50, None, 60), {'AGE': '+10'}, 2)
  assert chosen.tolist() == [1, 3]
  assert [SCHEMA.decode(v)['AGE'] for v in new] == pytest.approx([60, 70], abs=1e-3)


def test_a_change_that_fits_no_volume_is_an_error_that_states_the_range():
  with pytest.raises(ValueError, match='90'):
    edited._changeable(split_of(85, 88), {'AGE': '+10'}, 2)


def test_an_unknown_attribute_is_an_error_that_lists_the_known():
  with pytest.raises(ValueError, match='AGE'):
    edited._changeable(split_of(50), {'HEIGHT': '+10'}, 2)
