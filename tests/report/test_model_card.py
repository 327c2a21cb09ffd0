"""Laws of the model card."""

from ldm_jax.report import model_card


def test_a_model_card_without_privacy_says_so():
  text = model_card.markdown({'title': 'A | <b>'})
  assert '**This model is NOT private.**' in text
  assert '<b>' not in text


def test_a_model_card_lists_figures_with_intervals():
  metrics = {
    'frechet': {'value': 1.5, 'low': 1.0, 'high': 2.0, 'n': 9, 'internal': True},
    'control': {'LVEDV': {'pearson_r': 0.9, 'mae': 5.0, 'n': 9}},
    'memorisation': {'auc': 0.5, 'auc_low': 0.4, 'auc_high': 0.6},
  }
  text = model_card.markdown({'metrics': metrics})
  assert '| frechet (internal) | 1.5 (1 to 2) | n = 9 |' in text
  assert 'control of LVEDV, Pearson r | 0.9' in text
  assert '0.5 (0.4 to 0.6)' in text


def test_memorisation_in_several_spaces_is_listed():
  metrics = {'memorisation': {'features': {'auc': 0.5}, 'voxels': {'auc': 0.75}}}
  text = model_card.markdown({'metrics': metrics})
  assert text.count('memorisation AUC') == 2
