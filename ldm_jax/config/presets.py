"""Settings that configs share: phantoms, kernels, sizes that follow from patients."""

import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

from ldm_jax.types import Config, Shape

# Cohort, the phantom's site, seed: the public one comes from another site.
PHANTOM_COHORTS = (
  ('public', 'public', 1),
  ('private', 'private', 2),
  ('test', 'private', 3),
  # Other people of the private site, for those presets that name a number of them.
  ('measuring', 'private', 4),
  ('public_test', 'public', 5),
)


# A nat of the latent, beside the error of a voxel (docs/recipe.md).
KL_WEIGHT = 4e-3


def use_phantom(
  config: Config, layout: str, num_patients: Mapping[str, int], **options: Any
) -> None:
  """Sets the cohorts of a phantom; requests come from its documented population.

  Args:
    config: ConfigDict to change.
    layout: 'phantom_...'.
    num_patients: dict cohort -> number.
    options: of the layout, beside those that tell the cohorts apart.
  """
  for name, site, seed in PHANTOM_COHORTS:
    if name not in num_patients:
      continue
    section = config.data[name]
    section.layout, section.part = layout, ''
    with section.options.unlocked():
      section.options.update(
        site=site, seed=seed, name=name, num_patients=num_patients[name], **options
      )
  config.sample.requests = 'population'


def use_kernel(config: Config, kernel: Shape, stride: Shape, channels: Shape) -> None:
  """One kernel and stride at all levels of autoencoder and denoiser, no attention.

  Where the autoencoder works on blocks of voxels, these have the stride's size, and the
  latent has half as many numbers as there are voxels in slices, a quarter in volumes. A
  nat of the KL divergence costs the same beside a voxel's error in either.

  Args:
    config: ConfigDict to change; the autoencoder's channels are set already.
    kernel, stride: one entry per axis.
    channels: of the denoiser's levels.
  """
  encoder, denoiser = config.autoencoder.model, config.diffusion.model
  encoder.patch = stride if encoder.patch else ()
  denoiser.channels = channels
  if encoder.patch:
    held = math.prod(stride) ** 2  # voxels of a block, blocks of a latent position
    encoder.latent_channels = min(held // 2, 16)
    config.autoencoder.kl_weight = KL_WEIGHT * encoder.latent_channels / held
  for model in (encoder, denoiser):
    model.kernels = (kernel,) * len(model.channels)
    model.strides = (stride,) * (len(model.channels) - 1)
  denoiser.attention_levels = (False,) * len(channels)


# Of private fine-tuning of biases (docs/recipe.md): each patient's gradient of them has
# about twice this norm, so nearly all are clipped. The rate is that of plain descent,
# which follows the few numbers that have a signal; Adam moves all alike, noise too.
BIASES = {
  'adapt.method': 'bias',
  'adapt.optimizer': 'sgd',
  'adapt.learning_rate': 0.1,
  'adapt.privacy.clip_norm': 0.1,
}


def fine_tune_biases(config: Config) -> None:
  """Private fine-tuning of few patients: biases and scales alone. [Bu22]

  Noise grows with the square root of the number of parameters: a step of two dozen
  patients at epsilon 10 says a hundredth of its noise about all parameters, and a fifth
  about biases.

  Args:
    config: ConfigDict to change.

  [Bu22] Bu et al., Differentially private bias-term fine-tuning, arXiv 2210.00036.
  """
  config.update_from_flattened_dict({**BIASES, 'adapt.steps': 30})


# Preset -> (largest expected batch of private patients, steps of a large cohort). On
# two cores a step of 32 patients takes seconds; the full presets are for accelerators.
LARGEST = {'tiny': (32, 100), 'small': (64, 200), 'full': (256, 500)}
# Below this many private patients: steps at most, learning rate. The noise of a small
# cohort is strong, and what it moves grows with both. By analogy with the rate of
# configs/hippocampus.py (29 patients); not measured at other sizes.
SMALL_COHORTS = ((64, 20, 2e-5), (256, 60, 1e-4))


def use_numbers(
  config: Config, preset: str, num_public: int, num_private: int
) -> dict[str, Any]:
  """Sets batches, steps, rate and delta by the numbers of patients, which are public.

  Batches are powers of two, at least 4, because every device takes a part: where a
  cohort has fewer, some of its patients stand in a batch twice, and a chunk of private
  patients is filled up with empty rows. The expected private batch is half the cohort
  or less, since a larger batch lowers the noise beside the signal more than it raises
  it.

  Args:
    config: ConfigDict to change.
    preset: one of LARGEST.
    num_public, num_private: patients; 0 private ones change nothing of `adapt`.

  Returns:
    {key: value} of all that was chosen, in the order of the config.
  """
  chosen = {
    'autoencoder.batch_size': _power(num_public, 4),
    'diffusion.batch_size': _power(num_public, 32 if preset == 'full' else 16),
  }
  if num_private:
    largest, steps = LARGEST[preset]
    batch_size = max(1, min(largest, 2 ** ((num_private // 2).bit_length() - 1)))
    rate = config.adapt.learning_rate
    for below, most, lower in reversed(SMALL_COHORTS):
      if num_private < below:
        steps, rate = min(steps, most), lower
    delta = config.adapt.privacy.delta
    while delta * num_private > 0.1:
      delta = float(f'{delta / 10:.0e}')
    chunk_size = _power(batch_size, 16)
    chosen |= {
      'adapt.steps': steps,
      'adapt.learning_rate': rate,
      'adapt.batch_size': _power(num_private, 16),
      'adapt.privacy.delta': delta,
      'adapt.privacy.batch_size': batch_size,
      'adapt.privacy.chunk_size': chunk_size,
      # Memory for the gradients of a whole chunk, or of few patients of large networks.
      'adapt.privacy.microbatch': min(4, chunk_size) if preset == 'full' else 0,
    }
  config.update_from_flattened_dict(chosen)
  return chosen


@functools.cache
def say_once(text: str) -> None:
  """Prints a line on the standard error stream, once in this process."""
  print(text, file=sys.stderr)


def _power(number, largest):
  """The power of two at most `number` and `largest`, at least 4."""
  return max(4, min(largest, 2 ** (max(number, 1).bit_length() - 1)))
