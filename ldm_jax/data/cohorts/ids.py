"""Which ids of patients and records are safe as file names and in tables."""

from __future__ import annotations

# A spreadsheet takes these for a formula, and a command line '-' for a flag.
FORMULA = ('=', '+', '-', '@')
MAX_BYTES = 200  # of the 255 that a file name may have; endings are added to it
REQUIRED = (
  'a short text without "/" or control characters that begins with a letter or digit'
)


def fault(text: str) -> str:
  """Why `text` cannot be the id of a patient or record; '' when it can."""
  if not text:
    return 'is empty'
  if '/' in text or '\\' in text:
    return 'holds a path'
  if not text.isprintable():
    return 'holds control characters'
  if text.startswith(FORMULA):
    return f'begins with {text[0]!r} and would be run as a formula by a spreadsheet'
  if text.startswith('.'):
    return 'begins with a dot and would be a hidden or another file'
  if len(text.encode()) > MAX_BYTES:
    return f'is longer than {MAX_BYTES} bytes'
  return ''
