"""The command ldm-jax-sample: draws volumes from a shared model; needs nothing else.

ldm-jax-sample --model=shareable.zip --num=100 --set.AGE=60 --out=DIR
ldm-jax-sample --model=shareable.zip --set.AGE=50:70 '--set.SEX=F|M' --out=DIR --seed=1
ldm-jax-sample --model=shareable.zip --requests=TABLE.csv --out=DIR
ldm-jax-sample --model=shareable.zip --num=20 '--within.ESED=1|0' --out=DIR
ldm-jax-sample --model=shareable.zip --about

--set.NAME takes a value, a range LOW:HIGH, categories A|B, or n/a (unknown). Attributes
that are not named are drawn as --rest says: from the prior that came with the model
(prior, if there is one), as in one of its own samples (samples), within their ranges
(uniform), or they stay unknown (unknown).
--within.NAME draws several volumes of each patient, one for each value: 1|0 of a phase,
+0|+2 of an age; all else is the same in them. --num still counts volumes.
DIR gets NIfTI volumes with their place, participants.tsv and what its columns mean; of
brains as a BIDS derivative. --dicom also writes a DICOM series for each. A model that
was trained with data.labels='joint' writes a label map beside each volume.

Exit status 0, 1 when drawing failed, 2 for flags or a model that cannot be used; one
paragraph on stderr says why.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ldm_jax import jax_environment
from ldm_jax.workfolder import progress_bar

SET, WITHIN = '--set.', '--within.'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog='ldm-jax-sample',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--model', required=True, help='shareable.zip, or its folder')
  parser.add_argument('--out', default='', help='new folder for the volumes')
  parser.add_argument('--num', type=int, help='1, or one for each row of --requests')
  parser.add_argument('--seed', type=int, default=0, help='of noise and drawn values')
  parser.add_argument('--requests', default='', help='table, a column an attribute')
  parser.add_argument('--rest', default='', help='prior, samples, uniform or unknown')
  parser.add_argument('--steps', type=int, help='of the solver')
  parser.add_argument('--guidance', type=float, help='above 1 obeys requests more')
  parser.add_argument('--solver', help='ddim, heun, dpmpp_2m, ...')
  parser.add_argument('--batch_size', type=int, help='volumes at once')
  parser.add_argument('--dicom', action='store_true', help='writes DICOM, too')
  parser.add_argument('--about', action='store_true', help='says what the model is')
  try:
    flags, rest = parser.parse_known_args(argv)
  except SystemExit as stop:
    return int(stop.code or 0)
  try:
    within = _attributes([word for word in rest if word.startswith(WITHIN)], WITHIN)
    attributes = _attributes([word for word in rest if not word.startswith(WITHIN)])
    jax_environment.set_up_jax()
    from ldm_jax.sharing import open_model  # imports jax

    model = open_model.load(flags.model)
    if flags.about:
      print(about(model))
      return 0
    return draw(model, flags, attributes, within)
  except ValueError as error:
    print(f'ldm-jax-sample: {error}', file=sys.stderr)
    return 2
  except OSError as error:
    print(f'ldm-jax-sample: {error}', file=sys.stderr)
    return 1


def run() -> NoReturn:
  """Entry point of the console script."""
  sys.exit(main())


def draw(
  model: Any,
  flags: argparse.Namespace,
  attributes: dict[str, str],
  within: dict[str, str],
) -> int:
  """Draws what the flags ask for and writes it; returns the exit status.

  Args:
    model: a `sharing.shared_model.SharedModel`.
    flags: of the command.
    attributes: name -> text of each --set.
    within: name -> text of each --within.

  Raises:
    ValueError: flags that do not fit each other or the model.
  """
  from ldm_jax.sharing import asking, dataset
  from ldm_jax.synthesis import within_patient

  folder = _new_folder(flags.out)
  if flags.num is not None and flags.num < 1:
    raise ValueError(f'--num is {flags.num}; expected at least 1.')
  values = asking.within(model.schema, within)
  several = within_patient.num_volumes(values)
  if flags.num and flags.num % several:
    raise ValueError(f'--num is {flags.num}; expected a multiple of {several} volumes.')
  if flags.requests:
    if attributes:
      raise ValueError('Give either --requests or --set, not both.')
    rows = asking.from_table(model.schema, flags.requests)
    name = pathlib.Path(flags.requests).name
    num = flags.num or len(rows) * several
    origin = f'table {name}: values as they were given'
    options = model.drawn_by(flags.seed, flags.rest)
    people = asking.of_rows(model.schema, rows, num // several, **options)
  else:
    num = flags.num or several
    options = {'seed': flags.seed, 'rest': flags.rest}
    people = model.requests(num // several, **options, **attributes)
    origin = 'chosen by the flags of ldm-jax-sample, else drawn at random'
  vectors, patients = within_patient.drawn_from(
    values, model.schema, people, flags.seed, as_given=bool(flags.requests)
  )
  names = ('steps', 'guidance', 'solver', 'batch_size')
  chosen = {name: getattr(flags, name) for name in names}
  if model.about['warning']:
    print(f'WARNING: {model.about["warning"]}', file=sys.stderr)
  with progress_bar('sample', num, 'volume') as advance:
    written = dataset.write(
      folder,
      _counted(_draws(model, vectors, patients, flags.seed, chosen), advance),
      vectors,
      model.schema,
      model.affine,
      {'modality': 'OT', **model.about},
      seed=flags.seed,
      origin=origin,
      as_dicom=flags.dicom,
      label_names=model.label_names if model.system.decode_labelled else None,
      patients=patients,
      within=tuple(values),
    )
  print(f'Wrote {written} volumes and participants.tsv into {folder}')
  return 0


def about(model: Any) -> str:
  """What a model is, can be asked for and guarantees, as text."""
  from ldm_jax.sharing import asking

  privacy = model.privacy
  known = ('epsilon', 'epsilon_guaranteed', 'delta', 'num_patients', 'unit')
  said = {key: privacy[key] for key in known if key in privacy}
  spacing = [float(abs(model.affine[2 - axis, axis])) for axis in range(3)]
  lines = [
    f'{model.about["name"]}: {model.about["model"]}, by {model.about["made_by"]}',
    f'volumes (d,h,w): {model.spec.shape}, {spacing} mm',
    f'attributes: {", ".join(map(asking.described, model.schema))}',
    f'privacy: {json.dumps(said)}',
  ]
  return '\n'.join(lines + [model.about['warning']] * bool(model.about['warning']))


def _draws(model, vectors, patients, seed, chosen):
  """Batches of volumes, or of pairs with their label maps."""
  labels = model.system.decode_labelled is not None
  return model.draws(vectors, seed=seed, labels=labels, patients=patients, **chosen)


def _counted(batches, advance):
  """The batches, each counted once it has been written."""
  done = 0
  for batch in batches:
    yield batch
    done += len(batch[0] if isinstance(batch, tuple) else batch)
    advance(done)


def _attributes(words, start=SET):
  """['--set.AGE=60', ...] -> {'AGE': '60'}."""
  found = {}
  for word in words:
    name, equals, value = word.partition('=')
    if not name.startswith(start) or not equals:
      raise ValueError(
        f'The flag {word!r} is not known. Attributes are set like --set.AGE=60 (with '
        '=); --help lists the flags.'
      )
    found[name.removeprefix(start)] = value
  return found


def _new_folder(text):
  if not text:
    raise ValueError('--out is missing; name a new folder for the volumes.')
  folder = pathlib.Path(text)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise ValueError(f'{folder} exists and is not empty; choose another --out.')
  return folder


if __name__ == '__main__':
  run()
