"""Volumes per second from files to training arrays: `store.prepare` beside MONAI.

    python benchmarks/prepare.py [--data=FOLDER] [--cases=NAME,...] [--repeats=5]

Both read NIfTI files, turn them to one orientation, resample, scale the 0.5th and
99.5th percentiles to 0 and 1, crop or pad, keep the results on disk and hand over every
volume in memory. Cold: nothing is kept yet. Warm: all is, in a data set opened anew.
MONAI's chain is LoadImage, Orientation, Spacing, ScaleIntensityRangePercentiles and
ResizeWithPadOrCrop in a PersistentDataset; it counts at the better of one process with
all cores' threads and a DataLoader with one worker per core. Without --data the volumes
are made by the phantom; FOLDER holds scd/, ixi/ and hippocampus/.
"""

import argparse
import concurrent.futures
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time
import warnings

import numpy as np

from ldm_jax.data.cohorts.attributes import Schema
from ldm_jax.data.cohorts.cohort import Cohort, FileSource, Record
from ldm_jax.data.phantom.cardiac import cohort as cardiac
from ldm_jax.data.preprocessing.preprocess import Spec
from ldm_jax.data.readers import volume
from ldm_jax.data.store import store

CORES = os.cpu_count()
PAGE = 1024  # float32 of a page of memory
# Case -> (files below --data, keep the stack's axis, shape, mm per axis).
REAL = {
  'cardiac': ('scd/*/*_E[DS].nii.gz', True, (14, 96, 96), (None, 1.5, 1.5)),
  'brain': ('ixi/*.nii.gz', False, (72, 96, 80), (2.5, 2.5, 2.5)),
  'hippocampus': ('hippocampus/images/*.nii.gz', False, (24, 32, 24), (1.5, 1.5, 1.5)),
}


def real_cases(folder, names):
  """{name: (files, stack, Spec)} of the folder's real scans."""
  found = {}
  for name in names or REAL:
    pattern, stack, shape, spacing = REAL[name]
    files = sorted(pathlib.Path(folder).glob(pattern))
    if not files:
      raise SystemExit(f'{folder} holds no {pattern}; give --data another folder')
    found[name] = (files, stack, _spec(shape, spacing))
  return found


def phantom_cases(folder, quick):
  """{name: (files, stack, Spec)} of synthetic stacks of 16-bit whole numbers."""
  side, num, depth = (32, 2, 11) if quick else (192, 12, 13)
  mm = 320 / side
  cohort = cardiac.cohort(
    'bench', num, shape=(depth, side, side), spacing_mm=(10.0, mm, mm)
  )

  def write(record):
    image, _ = record.source.read()
    path = pathlib.Path(folder) / f'{record.id}.nii.gz'
    volume.write(path, np.int16(image.array * 1000), image.affine)
    long_ago = time.time() - 3600  # as files of a data set are
    os.utime(path, (long_ago, long_ago))
    return path

  with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
    files = sorted(pool.map(write, cohort.records))
  small = (depth, side // 2, side // 2)
  return {'phantom': (files, True, _spec(small, (None, 1.2 * mm, 1.2 * mm)))}


def _spec(shape, spacing):
  return Spec(shape, spacing, percentiles=(0.5, 99.5), foreground=False)


def our_pass(files, stack, spec, folder):
  """Prepares what is not prepared yet and reads every volume; returns the last."""
  records = [
    Record(f'{i}', f'{i}', FileSource(str(file), stack=stack))
    for i, file in enumerate(files)
  ]
  store.prepare(folder, Cohort('bench', Schema(), tuple(records)), spec)
  split = store.open_split(folder, 'bench')
  for index in range(len(split)):
    last = split.volume(index)
    _touch(last)
  return last


def peer_pass(files, stack, spec, folder, workers):
  """The same by MONAI; `workers` processes, 0 for this one. Returns the last volume."""
  import monai.data
  import torch
  from monai import transforms

  torch.set_num_threads(CORES)
  # Ours is (slices, rows, columns) = (S, A, R), MONAI's (R, A, S).
  pixdim = [-1 if mm is None else mm for mm in spec.spacing_mm[::-1]]
  chain = transforms.Compose(
    [
      transforms.LoadImage(image_only=True, ensure_channel_first=True),
      transforms.Orientation(axcodes='RAS'),
      transforms.Spacing(pixdim=pixdim),
      transforms.ScaleIntensityRangePercentiles(*spec.percentiles, 0, 1, clip=True),
      transforms.ResizeWithPadOrCrop(spec.shape[::-1]),
    ]
  )
  kept = monai.data.PersistentDataset([str(f) for f in files], chain, folder)
  if workers:
    loader = torch.utils.data.DataLoader(
      kept, batch_size=None, num_workers=workers, collate_fn=lambda x: x
    )
    for volumes in loader:
      last = volumes
      _touch(last.numpy())
  else:
    for index in range(len(kept)):
      last = kept[index]
      _touch(last.numpy())
  return np.asarray(last)[0].transpose()


def _touch(array):
  """Reads one number of every page, so that no side hands over a mere promise."""
  array.ravel(order='K')[::PAGE].sum()


def measure(case, repeats):
  """Volumes per second of both sides, cold and warm, taken in turn."""
  files, _, spec = case
  sides = {
    'ours': lambda folder: our_pass(*case, folder),
    'peer_one_process': lambda folder: peer_pass(*case, folder, 0),
    'peer_workers': lambda folder: peer_pass(*case, folder, CORES),
  }
  rates = {(side, state): [] for side in sides for state in ('cold', 'warm')}
  last = {}
  for repeat in range(repeats + 1):  # the first is not counted: imports, compilation
    for side, run in sides.items():
      with tempfile.TemporaryDirectory() as folder:
        for state in ('cold', 'warm'):
          began = time.perf_counter()
          last[side] = run(folder)
          rate = len(files) / (time.perf_counter() - began)
          rates[side, state] += [rate] if repeat else []
  found = {'volumes': len(files), 'shape': list(spec.shape)}
  for state in ('cold', 'warm'):
    medians = {side: statistics.median(rates[side, state]) for side in sides}
    peer = max(medians['peer_one_process'], medians['peer_workers'])
    found[f'speed_ratio_{state}'] = round(medians['ours'] / peer, 2)
    for side, rate in medians.items():
      found[f'{side}_{state}_volumes_per_second'] = round(rate, 1)
  difference = np.abs(last['ours'] - last['peer_workers']).mean()
  found['mean_difference'] = round(float(difference), 4)
  return found


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data', default='', help='folder of real scans; none: phantom')
  parser.add_argument('--cases', default='', help='names, comma-separated; all if none')
  parser.add_argument('--repeats', type=int, default=5, help='counted passes of each')
  parser.add_argument('--quick', action='store_true', help='tiny shapes: does it run?')
  options = parser.parse_args()
  warnings.filterwarnings('ignore')
  names = [name for name in options.cases.split(',') if name]
  if options.data and set(names) - set(REAL):
    parser.error(f'unknown cases {names}; choose from {", ".join(REAL)}')
  with tempfile.TemporaryDirectory() as folder:
    if options.data:
      cases = real_cases(options.data, names)
    else:
      cases = phantom_cases(folder, options.quick)
    found = {name: measure(case, options.repeats) for name, case in cases.items()}
  answer = {'benchmark': 'prepare'}
  for state in ('cold', 'warm'):
    key = f'speed_ratio_{state}'
    answer[key] = min(case[key] for case in found.values())
  packages = ('numpy', 'nibabel', 'isal', 'torch', 'monai')
  answer |= {
    'cases': found,
    'command': ' '.join(['python', *sys.argv]),
    'repeats': options.repeats,
    'hardware': platform.processor() or platform.machine(),
    'cores': CORES,
    'versions': {name: importlib.metadata.version(name) for name in packages},
  }
  print(json.dumps(answer))


if __name__ == '__main__':
  main()
