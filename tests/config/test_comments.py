"""Laws of the annotated config: every key, with the comment of its section."""

from ldm_jax.config import comments, parsing
from ldm_jax.config.defaults import defaults


def test_every_key_stands_below_the_comment_of_its_section():
  config = defaults()
  lines = comments.text(config).splitlines()
  keys = [line.partition(' = ')[0] for line in lines if line[:1] not in ('', '#')]
  assert sorted(keys) == sorted(parsing.flatten(config)) and keys[0] == 'name'
  assert keys.index('adapt.method') < keys.index('adapt.batch_size')
  at = lines.index('adapt.privacy.clipping = ' + repr(config.adapt.privacy.clipping))
  assert lines[at - 1].startswith('# ')
  at = lines.index('sample.ema_decay = None')
  assert lines[at - 1] == '# One of adapt.ema_decay; None for the first of them.'
  assert max(map(len, lines)) <= 120


def test_comments_of_nested_sections_and_of_shared_ones_are_found():
  said = comments.of_keys()
  assert 'not forgotten' in said['adapt.prior']
  assert said['counterfactual.sdedit.strength'].startswith('How far back to noise')
  assert all(said[key] for key in ('adapt.times', 'adapt.pairs.use', 'export.dtype'))
