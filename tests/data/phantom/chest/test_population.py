"""Laws of the patients of the chest phantom."""

import numpy as np

from ldm_jax.data.phantom import draws
from ldm_jax.data.phantom.chest import cohort, population


def test_the_sites_differ_in_their_patients():
  drawn = {site: cohort.population(0, 300, site=site) for site in ('public', 'private')}

  def mean(site, name):
    return np.mean([draw[name] for draw in drawn[site]])

  for name in ('age', 'cardiothoracic_ratio', 'effusion'):
    assert mean('private', name) > mean('public', name)
  for draw in drawn['private']:
    draws.check_attributes('chest', draw, population.SCHEMA)
