"""tensorflow-datasets builders, one per layout: files -> ArrayRecord, no TensorFlow.

    python -m ldm_jax.data.tfds_builders scd OUT --manual_dir=ROOT [--options=JSON]
    --config.data.public.layout=tfds --config.data.public.root=OUT/ldm_scd/default/1.0.0

Every layout of `layouts.LAYOUTS` that has an ABOUT is a builder `ldm_<layout>`. An
example is one scan on its own grid (d,h,w), not preprocessed, with everything that
`prepare` needs: a store built from these records equals one built from the files. This
module alone needs tensorflow-datasets (extra `tfds`); `layouts.tfds` reads the result.
Where TensorFlow is installed, which the command `tfds` imports, this does the same:
`tfds build --imports=ldm_jax.data.tfds_builders ldm_scd --manual_dir=ROOT
--data_dir=OUT`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ldm_jax.data import layouts
from ldm_jax.data.cohorts.attributes import Schema

SPLIT = 'train'  # of all patients; config.data.split splits them


@dataclasses.dataclass(eq=False)
class LayoutConfig(tfds.core.BuilderConfig):
  """Arguments of the layout beside its root.

  Attributes:
    options: keyword arguments of `read`.
    schema: entries of `Schema.to_config`; () for the layout's own.
  """

  options: dict = dataclasses.field(default_factory=dict)
  schema: tuple = ()


class LayoutBuilder(  # type: ignore[call-arg]
  tfds.core.GeneratorBasedBuilder, skip_registration=True
):
  """Writes the scans of one layout; `LAYOUT` is its module."""

  LAYOUT = None
  builder_config_cls = LayoutConfig

  def __init__(self, *, file_format: str = 'array_record', **options: Any):
    super().__init__(file_format=file_format, **options)

  def _info(self):
    about = self.LAYOUT.ABOUT
    # Scans differ in shape; label maps are mostly zeros.
    image, label = (
      tfds.features.Tensor(shape=(None, None, None), dtype=dtype, encoding=encoding)
      for dtype, encoding in ((np.float32, 'bytes'), (np.uint8, 'zlib'))
    )
    affine = tfds.features.Tensor(shape=(4, 4), dtype=np.float64)
    words = ('id', 'patient', 'visit', 'phase', 'attributes', 'source', 'fingerprint')
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'{about.title}. One scan an example: image and label (d,h,w) on the '
      "scan's own grid, affine (d,h,w,1) -> world RAS mm; attributes and source grid "
      'are JSON. A scan without labels has an empty label.',
      homepage=about.homepage,
      citation=about.citation,
      license=about.licence,
      features=tfds.features.FeaturesDict(
        {
          'image': image,
          'label': label,
          'affine': affine,
          **{word: tfds.features.Text() for word in words},
        }
      ),
      metadata=tfds.core.MetadataDict(),
      disable_shuffling=True,  # records keep the order of the cohort
    )

  def _split_generators(self, dl_manager):
    return {SPLIT: self._generate_examples(self._cohort(dl_manager))}

  def _cohort(self, dl_manager):
    config = self.builder_config
    options = dict(config.options)
    if config.schema:
      options['schema'] = Schema.from_config([dict(entry) for entry in config.schema])
    root = '' if self.MANUAL_DOWNLOAD_INSTRUCTIONS is None else dl_manager.manual_dir
    return self.LAYOUT.read(str(root), **options)

  def _generate_examples(self, cohort):
    """Yields scans in order; an unreadable one is skipped with a note."""
    listed, problems = [], []
    for record in cohort.records:
      try:
        scan, label = record.source.read()
        fingerprint = record.source.fingerprint()
      except ValueError as error:
        problems.append(f'{record.id}: left out by tfds build: {error}')
        continue
      about = {
        'id': record.id,
        'patient': record.patient,
        'visit': record.visit,
        'phase': record.phase,
        'attributes': dict(record.attributes),
        'fingerprint': fingerprint,
      }
      listed.append(about)
      yield (
        len(listed) - 1,
        {
          **about,
          'attributes': json.dumps(about['attributes'], default=_plain),
          'image': np.asarray(scan.array, np.float32),
          'label': np.zeros((0, 0, 0), np.uint8)
          if label is None
          else np.asarray(label.array, np.uint8),
          'affine': np.asarray(scan.affine, np.float64),
          'source': json.dumps({**scan.source.to_json(), 'remarks': scan.remarks}),
        },
      )
    cohort_of = {
      'name': cohort.name,
      'schema': cohort.schema.to_config(),
      'notes': [*cohort.notes, *problems],
      'records': listed,
    }
    text = json.dumps(cohort_of, default=_plain)
    self.info.metadata.update(cohort=text)


def _plain(value):
  """NumPy's numbers as Python's, for JSON."""
  return value.item()


def _builder(name, layout):
  manual = layout.ABOUT.instructions or None
  return type(
    f'Ldm{"".join(part.title() for part in name.split("_"))}',
    (LayoutBuilder,),
    {
      '__doc__': layout.ABOUT.title,
      '__module__': __name__,
      'LAYOUT': layout,
      'MANUAL_DOWNLOAD_INSTRUCTIONS': manual,
      'VERSION': tfds.core.Version(layout.ABOUT.version),
      'BUILDER_CONFIGS': [LayoutConfig(name='default', description='As published.')],
    },
  )


BUILDERS = {
  name: _builder(name, layout)
  for name, layout in layouts.LAYOUTS.items()
  if hasattr(layout, 'ABOUT')
}
globals().update({builder.__name__: builder for builder in BUILDERS.values()})


def build(
  name: str,
  data_dir: str | os.PathLike,
  manual_dir: str | os.PathLike | None = None,
  options: Mapping[str, Any] | None = None,
  schema: Sequence[Mapping[str, Any]] = (),
) -> LayoutBuilder:
  """Builds one layout below `data_dir` and returns its builder.

  Args:
    name: of the layout.
    data_dir: where <ldm_name>/<config>/<version> is written, unless it is there.
    manual_dir: folder of the data set, for layouts that read files.
    options: keyword arguments of the layout.
    schema: entries of `Schema.to_config`.
  """
  config = None
  if options or schema:
    config = LayoutConfig(
      name='custom', description='', options=dict(options or {}), schema=tuple(schema)
    )
  builder = BUILDERS[name](data_dir=data_dir, config=config)
  manual_dir = None if manual_dir is None else str(manual_dir)
  download = tfds.download.DownloadConfig(manual_dir=manual_dir)
  builder.download_and_prepare(download_config=download)
  return builder


def main() -> None:
  """Builds one layout as the command line says."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('layout', choices=sorted(BUILDERS))
  parser.add_argument('data_dir', help='where the data set is written')
  parser.add_argument('--manual_dir', help='folder of the files, as the layout says')
  parser.add_argument('--options', type=json.loads, help='of the layout, as JSON')
  parser.add_argument('--schema', type=json.loads, default=(), help='attributes, JSON')
  given = parser.parse_args()
  built = build(
    given.layout, given.data_dir, given.manual_dir, given.options, given.schema
  )
  print(f'config.data.<cohort>: layout=tfds, root={built.data_dir}')


if __name__ == '__main__':
  main()
