"""The fine-tuning methods: which parameters are trained or added, and which loss.

[Bu22] DP-BiTFiT, arXiv 2210.00036, biases, and here the scales of norms;
[Lyu24] DP-LDM, which trains attention and condition embedding only; [Hu21] LoRA;
[Gal22] Textual inversion, arXiv 2208.01618; [Ruiz23] DreamBooth, arXiv 2208.12242;
[Kumari23] Custom Diffusion, arXiv 2212.04488.
"""

import dataclasses
import math
import re
from collections.abc import Callable

import jax

from ldm_jax import prng
from ldm_jax.models import adapters
from ldm_jax.models.conditions import new_token
from ldm_jax.training import denoising_loss, prior_preservation, state
from ldm_jax.types import Array, Config, PyTree


@dataclasses.dataclass(frozen=True)
class Method:
  """A fine-tuning method.

  Attributes:
    parts: the trained parameters, as pairs (regular expression over paths,
      description); each expression must match some parameter.
    adds: (section, params, key, like) -> flat dict of new parameters.
    starts_at_class: whether `adds` uses `like`, the mean token of the public
      conditions, that is, of the class to which the new token belongs.
    prior_weight: weight of the loss on samples of the pre-trained model, where
      adapt.prior.weight is None.
  """

  parts: tuple[tuple[str, str], ...]
  adds: Callable = lambda section, params, key, like: {}
  starts_at_class: bool = False
  prior_weight: float = 0.0

  def trains(self, path: str) -> bool:
    """Whether the parameter with this path is trained."""
    return any(re.search(pattern, path) for pattern, _ in self.parts)


def _adapters(section, params, key, like):
  lora = section.lora
  return adapters.create(params, key, lora.rank, lora.alpha, lora.targets)


def _word(section, params, key, like):
  return new_token.create(params, key, section.tokens.num, like)


WORD = (f'^{new_token.PREFIX}', 'a new token')
METHODS = {
  'full': Method((('', 'a parameter'),)),
  'bias': Method((('(^|/)(bias|scale)$', 'biases or scales of norms'),)),  # [Bu22]
  'attention': Method(  # [Lyu24]
    (
      (
        '^(text_)?conditioner/|attention',
        "attention or the condition's encoders (set diffusion.model.attention_levels)",
      ),
    )
  ),
  'lora': Method(((f'/({adapters.DOWN}|{adapters.UP})$', 'adapters'),), _adapters),
  'textual_inversion': Method((WORD,), _word, starts_at_class=True),  # [Gal22]
  'dreambooth': Method(  # [Ruiz23]
    (('^(unet|dit)/', 'a denoiser'), WORD), _word, prior_weight=1.0
  ),
  'custom_diffusion': Method(  # [Kumari23]
    (
      (
        new_token.READERS,
        'keys and values of attention over the conditions (it needs '
        "'attention' in diffusion.conditioner.by, and attention somewhere: "
        'diffusion.model.attention_levels or middle_attention)',
      ),
      WORD,
    ),
    _word,
  ),
}


def added(
  section: Config, params: PyTree, key: jax.Array, like: Array | None = None
) -> PyTree:
  """Flat parameters that the method of `config.adapt` adds to a network.

  Args:
    section: config.adapt.
    params: flat dict of the network's own parameters.
    key: PRNG key of their initial values.
    like: (width,) token of the class, see `Method`.
  """
  return METHODS[section.method].adds(section, params, key, like)


def partition(name: str, params: PyTree) -> tuple[PyTree, PyTree]:
  """Flat parameters -> flat (trained, frozen), by the method of this name.

  Raises:
    ValueError: the network lacks a part that the method trains.
  """
  method = METHODS[name]
  for pattern, words in method.parts:
    if not any(re.search(pattern, path) for path in params):
      raise ValueError(
        f'config.adapt.method is {name!r}, which trains {words}, but this network has '
        f'none; it has {", ".join(sorted(params)[:8])}, ... Change '
        '--config.adapt.method, or the network.'
      )
  return state.partition(params, method.trains)


def num_trained(section: Config, shapes: PyTree) -> int:
  """Number of trained parameters in a network with these flat shapes.

  Raises:
    ValueError: from `added` and `partition`.
  """
  key = jax.eval_shape(lambda: prng.key(0))
  new = jax.eval_shape(lambda p, k: added(section, p, k), shapes, key)
  trained, _ = partition(section.method, {**shapes, **new})
  return sum(math.prod(leaf.shape) for leaf in trained.values())


def prior_weight(section: Config) -> float:
  """Weight of the loss on samples of the pre-trained model, 0 for none.

  Raises:
    ValueError: the loss could have no effect, or there is no pre-trained model.
  """
  method, weight = METHODS[section.method], section.prior.weight
  weight = method.prior_weight if weight is None else weight
  if weight and method.parts == (WORD,):
    raise ValueError(
      f'config.adapt.prior.weight is {weight}, but {section.method!r} trains only the '
      'new token, which samples of the class do not have. Set '
      '--config.adapt.prior.weight=0.'
    )
  if weight and section.init != 'diffusion':
    raise ValueError(
      f'config.adapt.init is {section.init!r}, but the loss on samples of the '
      f'pre-trained model has weight {weight}. Set --config.adapt.prior.weight=0, or '
      "adapt.init='diffusion'."
    )
  return weight


def patient_loss(
  section: Config, losses: Callable[..., jax.Array], num_draws: int
) -> Callable[..., jax.Array]:
  """The loss of one patient, by the method of `config.adapt`.

  Args:
    section: config.adapt.
    losses: of `denoising_loss.denoising_losses`.
    num_draws: draws of (t, noise) for each volume.

  Returns:
    (trained, frozen, example, key) -> (). Where the method preserves the prior,
    `frozen` includes the class samples (`starting_point.class_samples`).
  """
  weight = prior_weight(section)
  if weight:
    losses = prior_preservation.preserving(losses, num_draws, weight)
  return denoising_loss.patient_loss(losses, num_draws, section.examples_per_patient)
