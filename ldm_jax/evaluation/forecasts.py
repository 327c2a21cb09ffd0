"""Predicted later visits against the real ones: volumes (n,d,h,w,1) in [0,1].

[Yeganeh25] arXiv 2412.20651, Table 2: PSNR, SSIM and a perceptual distance between a
patient's later scan and the one predicted from the earlier scan. Each figure is also
given for predicting no change at all, which is hard to beat when little changes. Means
over patients, with 95 % bootstrap intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ldm_jax.data.cohorts import roles
from ldm_jax.evaluation import causal, image_similarity, intervals, measuring_network
from ldm_jax.types import Array, Config


def prediction_quality(
  earlier: Array,
  predicted: Array,
  later: Array,
  patients: Array,
  distance: Callable[[Array, Array], np.ndarray] | None = None,
  num_resamples: int = 1000,
) -> dict[str, dict[str, Any]]:
  """Similarity of the prediction, and of the earlier scan, to the real later scan.

  Args:
    earlier, predicted, later: volumes (n,d,h,w,1), in one order.
    patients: (n,) names.
    distance: (x, y) -> (n,) in features of a network, or None to leave it out.
    num_resamples: of the bootstrap.

  Returns:
    dict of figures (value, low, high, n): `psnr` in dB, 100 at most, `ssim`,
    `distance`, and `unchanged_psnr`, ... of the earlier scan; `gain_psnr`, ... the mean
    improvement of the first over the second (of a distance, how much it is lower).

  Raises:
    ValueError: shapes that differ.
  """
  shapes = [np.shape(volumes) for volumes in (earlier, predicted, later)]
  if len(set(shapes)) > 1 or len(shapes[0]) != 5:
    raise ValueError(
      'Expected earlier, predicted and later scans of one shape (n, d, h, w, 1), got '
      f'{shapes}; give each patient all three.'
    )

  def measures(x):
    found = {
      'psnr': np.minimum(
        image_similarity.psnr(later[..., 0], x[..., 0]), causal.HIGHEST_DB
      ),
      'ssim': image_similarity.ssim(later[..., 0], x[..., 0]),
    }
    return found if distance is None else {**found, 'distance': distance(later, x)}

  own, unchanged, figures = measures(predicted), measures(earlier), {}
  for name, values in own.items():
    gain = values - unchanged[name]
    for key, column in (
      (name, values),
      (f'unchanged_{name}', unchanged[name]),
      (f'gain_{name}', -gain if name == 'distance' else gain),
    ):
      figures[key] = intervals.mean_figure(column, patients, num_resamples)
  return figures


def longitudinal(
  forecasts: Mapping[str, Array],
  network: measuring_network.MeasuringNetwork | measuring_network.PooledLatents,
  section: Config,
  spacing_mm: Array,
) -> dict[str, dict[str, Any]]:
  """All figures of predicted later visits, each with the cohort that it read.

  Args:
    forecasts: arrays stored by `synthesis.write_forecasts`.
    network: the measuring network. One that measures anatomy also gives the distance
      and `longitudinal_<measure>`: how the predicted change of a size follows the real
      one, both measured by this network (`causal.effectiveness`).
    section: config.evaluate.
    spacing_mm: (d,h,w) voxel size.
  """
  scans = {name: forecasts[name] for name in ('earlier', 'predicted', 'later')}
  patients, resamples = forecasts['patients'], section.num_bootstrap
  distance = network.distance if network.measures is True else None
  quality = prediction_quality(
    scans['earlier'], scans['predicted'], scans['later'], patients, distance, resamples
  )
  figures = {'longitudinal': quality}
  if section.measures and network.measures is True:
    sizes = {
      name: measuring_network.measure(section.measures, network.labels(x), spacing_mm)
      for name, x in scans.items()
    }
    for entry in section.measures:
      earlier, predicted, later = (found[entry['name']] for found in sizes.values())
      figures[f'longitudinal_{entry["name"]}'] = causal.effectiveness(
        later - earlier, predicted - earlier, patients, resamples
      )
  mark = roles.mark(str(forecasts['cohort']))
  return {
    name: {key: {**figure, **mark} for key, figure in parts.items()}
    for name, parts in figures.items()
  }
