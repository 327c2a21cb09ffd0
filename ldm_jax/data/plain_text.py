"""Text files of unknown origin -> str, in bounded memory."""

from __future__ import annotations

import codecs
import pathlib

from ldm_jax.data import files

MAX_BYTES = 2**26  # as text and rows of dicts, about ten times as much in memory


def read(path: pathlib.Path) -> str:
  """The text of a table's file: UTF-8, or UTF-16 with a mark.

  Raises:
    ValueError: no such file, too large, other bytes than text, or a NUL byte.
  """
  required = 'a UTF-8 TSV or CSV file'
  advice = 'Set options.table of the data section.'
  size = files.require_file(path, required, advice).st_size
  if size > MAX_BYTES:
    raise ValueError(
      f'{path} has {size} bytes; allowed are {MAX_BYTES}. Cut it down to the columns '
      'that data.schema names.'
    )
  try:
    content = path.read_bytes()
  except OSError as error:
    raise files.unreadable(path, error, required, advice) from error
  wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
  try:
    text = content.decode('utf-16' if wide else 'utf-8-sig')
  except UnicodeDecodeError as error:
    kind = files.kind_of(content[:132])
    raise ValueError(
      f'{path} is not UTF-8 text ({error.reason} at byte {error.start}'
      + (f'; it looks like {kind}' if kind else '')
      + f'); required is {required}. Save it again as UTF-8.'
    ) from error
  if '\0' in text:
    line = text.count('\n', 0, text.index('\0')) + 1
    raise ValueError(
      f'{path} holds a NUL byte in line {line}; '
      f'required is {required}. It is damaged or UTF-16 without a mark: save it again '
      'as UTF-8.'
    )
  return text
