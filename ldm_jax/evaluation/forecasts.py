"""Predicted later visits against the real ones: volumes (n,d,h,w,1) in [0,1].

[Yeganeh25] arXiv 2412.20651, Table 2: PSNR, SSIM and a perceptual distance between the
scan that a patient had years later and the one predicted from the earlier scan. Beside
each stands the same figure of predicting no change at all, which healthy years make
hard to beat. Means over patients, with 95 % bootstrap intervals.
"""

import numpy as np

from ldm_jax.evaluation import causal, image_similarity, measuring_network


def likeness(earlier, predicted, later, patients, distance=None, num_resamples=1000):
  """How like the real later scan the prediction is, and how like it the earlier one.

  Args:
    earlier, predicted, later: volumes (n,d,h,w,1), in one order.
    patients: (n,) names.
    distance: (x, y) -> (n,) of a network's features, or None to leave it out.
    num_resamples: of the bootstrap.

  Returns:
    dict of figures (value, low, high, n): `psnr` in dB, 100 at most, `ssim`,
    `distance`, and `unchanged_psnr`, ... of the earlier scan; `gain_psnr`, ... the mean
    difference of the two over patients (a distance gains by falling).

  Raises:
    ValueError: shapes that differ.
  """
  shapes = [np.shape(volumes) for volumes in (earlier, predicted, later)]
  if len(set(shapes)) > 1 or len(shapes[0]) != 5:
    raise ValueError(
      f'Earlier, predicted and later scans have the shapes {shapes}; required are '
      'three of one shape (n, d, h, w, 1).'
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
      figures[key] = causal.mean_figure(column, patients, num_resamples, 0)
  return figures


def longitudinal(forecasts, measurer, section, spacing_mm):
  """All figures of predicted later visits, marked internal unless they are public.

  Args:
    forecasts: what `synthesis.write_forecasts` keeps.
    measurer: the measuring network; one that measures anatomy also gives the distance
      and `longitudinal_<measure>`: how the predicted change of a size follows the real
      one, each measured by the same network (`causal.effectiveness`).
    section: config.evaluate.
    spacing_mm: (d,h,w) voxel size.
  """
  scans = {name: forecasts[name] for name in ('earlier', 'predicted', 'later')}
  patients, resamples = forecasts['patients'], section.num_bootstrap
  distance = measurer.distance if measurer.measures else None
  figures = {'longitudinal': likeness(*scans.values(), patients, distance, resamples)}
  if section.measures and measurer.measures:
    sizes = {
      name: measuring_network.measure(section.measures, measurer.labels(x), spacing_mm)
      for name, x in scans.items()
    }
    for entry in section.measures:
      earlier, predicted, later = (found[entry['name']] for found in sizes.values())
      figures[f'longitudinal_{entry["name"]}'] = causal.effectiveness(
        later - earlier, predicted - earlier, patients, resamples
      )
  mark = {'internal': str(forecasts['cohort']) != 'public'}
  return {
    name: {key: {**figure, **mark} for key, figure in parts.items()}
    for name, parts in figures.items()
  }
