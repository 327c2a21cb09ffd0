"""Reads a folder that is about to leave, file by file, and finds what must not.

Looked for, in every text, table, header and picture's text: files that do not belong,
absolute paths and addresses, ids of patients, times and dates, numbers of private
patients other than the public N, and whatever is marked internal. Findings name the
file and what kind it is, never the id or path itself.
"""

from __future__ import annotations

import base64
import csv
import gzip
import html.parser
import io
import json
import pathlib
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import nibabel as nib
import pydicom
from safetensors import safe_open

from ldm_jax.sharing import package, tensors

ONLY = (
  *(package.CONFIG, package.WEIGHTS, package.PREPROCESS, package.SCHEMA),
  *(package.PRIVACY, package.PRIOR, package.CARD, package.REPORT, package.SUMS),
)
IN_SAMPLES = re.compile(
  r'(?:samples|counterfactuals)/(?:\.bidsignore|dataset_description\.json|participants\.(?:tsv|json)|README'
  r'|labels\.json|dseg\.tsv|synthetic_\d+(?:_\d+)?(?:_seg)?\.nii\.gz'
  r'|dicom/(?:sub-synthetic\d+(?:_ses-\d+)?|synthetic_\d+(?:_\d+)?)/\d+\.dcm'
  r'|sub-synthetic\d+/sub-synthetic\d+_sessions\.(?:tsv|json)'
  r'|sub-synthetic\d+/(?:ses-\d+/)?[a-z]+/sub-synthetic\d+(?:_ses-\d+)?'
  r'_[A-Za-z0-9]+\.(?:nii\.gz|json))'
)
PATH = re.compile(
  r'(?<![\w/<.:)\]])/[A-Za-z_][\w.@+-]+|~/\w|(?<!\w)[A-Za-z]:\\\w|\\\\\w+\\\w'
  r'|\b(?:file|gs|s3|nfs|smb)://'
)
TIME = re.compile(
  r'\b(?:19|20)\d\d-[01]\d-[0-3]\d(?!\d)|(?<![\d:.])[0-2]?\d:[0-5]\d:[0-5]\d\b'
)
TIME_KEY = re.compile(r'time$|date|stamp|created|modified', re.IGNORECASE)
EPOCH = (1e9, 4e9)
COUNT_KEY = re.compile(
  r'n|num|count|patients|volumes|scans|records|left_out|n_.*'
  r'|num_(?:patients|volumes|scans|records|images|real|private|public|test).*'
)
COUNTED = re.compile(r'([\d,]*\d)\s+(?:private\s+)?patients\b')
# Ids that a text may well hold by chance are looked for in tables and values alone.
LEAST_LETTERS, LEAST_DIGITS = 3, 6
# Keys of config.json whose names end like those of times.
KNOWN_KEYS = ('num_timesteps', 'seed')


def findings(
  folder: pathlib.Path,
  ids: Mapping[str, Iterable[str]],
  num_patients: int | None = None,
) -> list[str]:
  """What must not leave, a sentence each; [] for a folder that may.

  Args:
    folder: of the shared model, sealed.
    ids: cohort -> ids of its patients and scans.
    num_patients: of the private cohort, which is public; None where there is none.
  """
  found: list[str] = []
  for path in package.files(folder):
    name = path.relative_to(folder).as_posix()
    if path.is_symlink() or not path.is_file():
      found.append(f'{name} is a link or no file')
    elif name not in ONLY and not IN_SAMPLES.fullmatch(name):
      found.append(f'{name} is no file of a shared model')
    else:
      words = _Words(ids, num_patients)
      found += [f'{name} holds {what}' for what in _in_file(name, path, words)]
  noted = package.sums((folder / package.SUMS).read_text())
  names = {p.relative_to(folder).as_posix() for p in package.files(folder)}
  if set(noted) != names - {package.SUMS}:
    found.append(f'{package.SUMS} does not list the files that there are')
  return list(dict.fromkeys(found))


def check(
  folder: pathlib.Path,
  ids: Mapping[str, Iterable[str]],
  num_patients: int | None = None,
) -> None:
  """Raises ValueError, with the `findings`, for a folder that must not leave."""
  found = findings(folder, ids, num_patients)
  if found:
    more = f'; and {len(found) - 8} more' if len(found) > 8 else ''
    raise ValueError(
      f'The shared folder was not written, because reading it back found what must '
      f'stay: {"; ".join(found[:8])}{more}. Names of models, attributes, categories '
      'and units are shown as the config has them: take ids, paths and dates out of '
      'the config (data.schema, name).'
    )


def check_zip(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Raises ValueError unless a zip holds the files of the folder and nothing else."""
  with zipfile.ZipFile(path) as archive:
    inside = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    comments = [archive.comment, *(entry.comment for entry in archive.infolist())]
  names = {
    f'{package.NAME}/{each.relative_to(folder).as_posix()}': each
    for each in package.files(folder)
  }
  if inside.keys() != names.keys() or any(comments):
    raise ValueError(f'{path} does not hold the files of {folder}; export again.')
  for name, each in names.items():
    if inside[name] != each.read_bytes():
      raise ValueError(f'{name} in {path} is not the file of the folder; export again.')


class _Words:
  """What is looked for in texts: ids as whole words, paths, times, counts."""

  def __init__(self, ids, num_patients):
    self.num_patients = num_patients
    self.cells = {str(each) for names in ids.values() for each in names}
    self.cells = {each for each in self.cells if len(each) >= LEAST_LETTERS}
    self.in_text = {
      each for each in self.cells if not each.isdigit() or len(each) >= LEAST_DIGITS
    }
    pattern = '|'.join(map(re.escape, sorted(self.in_text))) or r'(?!)'
    self.pattern = re.compile(rf'(?<![\w-])(?:{pattern})(?![\w-])')

  def in_value(self, text: str) -> Iterator[str]:
    """What a cell or a value holds."""
    if text.strip() in self.cells:
      yield 'an id of a patient'
    yield from self.within(text)

  def within(self, text: str) -> Iterator[str]:
    """What a running text holds."""
    if self.pattern.search(text):
      yield 'an id of a patient'
    if PATH.search(text):
      yield 'a path or address of the machine that trained'
    if TIME.search(text):
      yield 'a time or date'
    for count in COUNTED.findall(text):
      if int(count.replace(',', '')) != self.num_patients:
        yield 'a number of patients that is not the public N'
    if '(internal)' in text:
      yield 'something marked internal'


def _in_file(name: str, path: pathlib.Path, words: _Words) -> Iterator[str]:
  if name.endswith('.json'):
    yield from _in_json(name, json.loads(path.read_bytes()), words)
  elif name.endswith('.tsv'):
    for row in csv.reader(io.StringIO(path.read_text('utf-8')), delimiter='\t'):
      # The values of labels are numbers, as ids may be.
      for cell in row[1:] if name.endswith('/dseg.tsv') else row:
        yield from words.in_value(cell)
  elif name.endswith('.html'):
    yield from _in_html(path.read_text('utf-8'), words)
  elif name.endswith('.nii.gz'):
    yield from _in_nifti(path.read_bytes(), words)
  elif name.endswith('.dcm'):
    yield from _in_dicom(path, words)
  elif name.endswith('.safetensors'):
    yield from _in_tensors(path, words)
  else:
    yield from words.within(path.read_text('utf-8'))


def _in_json(name: str, value: Any, words: _Words, key: str = '') -> Iterator[str]:
  if isinstance(value, dict):
    for inner, part in value.items():
      yield from words.in_value(inner)
      if inner == 'internal' and part:
        yield 'something marked internal'
      yield from _of_key(name, inner, part, words)
      yield from _in_json(name, part, words, inner)
  elif isinstance(value, list):
    for part in value:
      yield from _in_json(name, part, words, key)
  elif isinstance(value, str):
    yield from words.in_value(value)
  elif _is_epoch(value) and key not in KNOWN_KEYS:
    yield 'a time or date'


def _is_epoch(value):
  """Whether a number may be seconds since 1970."""
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return is_number and EPOCH[0] < value < EPOCH[1]


def _of_key(name, key, value, words):
  if TIME_KEY.search(key) and key not in KNOWN_KEYS and isinstance(value, int | float):
    yield 'a time or date'
  if not COUNT_KEY.fullmatch(key) or not isinstance(value, int) or value is True:
    return
  if name == package.PRIVACY and key == 'num_patients' and value == words.num_patients:
    return
  yield 'a number of patients or scans that is not the public N'


class _Page(html.parser.HTMLParser):
  """Texts, values of attributes and pictures of a page, without its own code."""

  def __init__(self):
    super().__init__()
    self.texts: list[str] = []
    self.pictures: list[bytes] = []
    self.badges, self._skips = 0, 0

  def handle_starttag(self, tag, attrs):
    self._skips += tag in ('script', 'style')
    for name, value in attrs:
      if (value or '').startswith('data:image/png;base64,'):
        self.pictures.append(base64.b64decode(value.partition(',')[2]))
      elif name == 'class':
        self.badges += 'badge' in (value or '').split()
      elif name not in ('content', 'href'):
        self.texts.append(value or '')

  def handle_endtag(self, tag):
    self._skips -= tag in ('script', 'style')

  def handle_data(self, data):
    if not self._skips:
      self.texts.append(data)


def _in_html(text: str, words: _Words) -> Iterator[str]:
  page = _Page()
  page.feed(text)
  if page.badges:
    yield 'something marked internal'
  for each in page.texts:
    yield from words.within(each)
  for picture in page.pictures:
    for note in _png_texts(picture):
      yield from words.within(note.replace('https://', ''))


def _png_texts(content: bytes) -> Iterator[str]:
  """Text chunks of a PNG."""
  place = 8
  while place + 8 <= len(content):
    length, kind = struct.unpack('>I4s', content[place : place + 8])
    if kind in (b'tEXt', b'iTXt', b'zTXt', b'eXIf', b'tIME'):
      yield content[place + 8 : place + 8 + length].decode('latin-1')
    place += length + 12


def _in_nifti(content: bytes, words: _Words) -> Iterator[str]:
  image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
  note = image.header['descrip'].item().decode('latin-1')
  if not note.startswith('SYNTHETIC'):
    yield 'no word in its header that it is synthetic'
  others = [image.header[key].item() for key in ('aux_file', 'intent_name', 'db_name')]
  if any(others):
    yield 'text in its header'
  texts = [each.get_content() for each in image.header.extensions]
  for text in (note, *texts):
    text = text if isinstance(text, str) else text.decode('utf-8', 'replace')
    yield from words.within(text)
  # gzip notes a name and a time, if it is told any.
  if content[3] or content[4:8] != b'\0\0\0\0':
    yield 'a file name or time in its compression'


def _in_dicom(path: pathlib.Path, words: _Words) -> Iterator[str]:
  dataset = pydicom.dcmread(path)
  if 'SYNTHETIC' not in dataset.get('ImageType', ()):
    yield 'no word in its header that it is synthetic'
  for element in dataset:
    if element.keyword == 'PixelData':
      continue
    if element.VR in ('DA', 'TM', 'DT') and element.value:
      yield 'a time or date'
    elif element.tag.is_private or element.VR in ('SQ', 'OB', 'OW', 'UN'):
      yield 'elements of its header that we do not write'
    elif element.VR not in ('DS', 'IS', 'US', 'UI'):
      for text in str(element.value).split('^'):
        yield from words.in_value(text)


def _in_tensors(path: pathlib.Path, words: _Words) -> Iterator[str]:
  with safe_open(path, 'np') as file:
    if (file.metadata() or {}) != tensors.METADATA:
      yield 'notes beside its tensors'
    for name in file.keys():  # noqa: SIM118 (no mapping)
      if not name.startswith(('autoencoder/', 'denoiser/', *tensors.STATISTICS)):
        yield 'tensors of no network that is shared'
      yield from words.in_value(name)
