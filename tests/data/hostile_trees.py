"""Broken folders and tables for the layout `folder`, each with its verdict.

`TREES` maps a name to (change of a good tree at `root`, words of the verdict, options
of the layout). READ means that the cohort is read and has the patients of `good`.
"""

import os

from tests.data.hostile import A_FOLDER, READ, nifti

TREES = {}
ROWS = (('P1', '20', 'F'), ('P2', '30', 'M'), ('P3', '40', 'F'))


def good(root):
  """Three patients, one scan each."""
  root.mkdir()
  for number, (name, *_) in enumerate(ROWS):
    (root / f'{name}.nii').write_bytes(nifti() + bytes(number))
  (root / 'participants.tsv').write_text(text())


def text(rows=ROWS, head=('id', 'age', 'sex'), separator='\t'):
  return ''.join(separator.join(row) + '\n' for row in (head, *rows))


def with_row(*row, **options):
  return text((*ROWS, row), **options)


def with_cells(*cells):
  return text((*ROWS[:2], ('P3', *cells)))


def tree(name, verdict, **options):
  """Registers root -> the table's content, or None where the function writes it."""

  def register(function):
    def write(root):
      content = function(root)
      if content is not None:
        content = content if isinstance(content, bytes) else content.encode()
        (root / 'participants.tsv').write_bytes(content)

    TREES[name] = (write, verdict, options)
    return function

  return register


def table(name, verdict, content, **options):
  tree(name, verdict, **options)(lambda root: content)


# No table

table('table_empty', 'holds no rows', '')
table('table_of_spaces', 'holds no rows', ' \n\t\n \n')
table('table_without_rows', 'holds no rows', text(()))
table('table_is_a_spreadsheet', 'looks like a zip', b'PK\x03\x04\xff\xfe' + bytes(200))
table('table_is_a_picture', 'not UTF-8', b'\x89PNG\r\n\x1a\n' + bytes(200))


@tree('table_is_a_pipe', 'is a pipe')
def _(root):
  (root / 'participants.tsv').unlink()
  os.mkfifo(root / 'participants.tsv')


@tree('table_is_a_folder', 'is a folder')
def _(root):
  (root / 'participants.tsv').unlink()
  (root / 'participants.tsv').mkdir()


@tree('table_is_a_loop', 'cannot be read')
def _(root):
  (root / 'participants.tsv').unlink()
  (root / 'participants.tsv').symlink_to('participants.tsv')


@tree('table_of_a_terabyte', 'Keep only the columns')
def _(root):
  os.truncate(root / 'participants.tsv', 2**40)


# Encodings

table('utf16_with_mark', READ, text().encode('utf-16'))
table('utf8_with_mark', READ, text().encode('utf-8-sig'))
table('old_mac_lines', READ, text().replace('\n', '\r'))
table('blank_lines_first', READ, '\n\n' + text(separator=';'))
table('utf16_without_mark', 'NUL byte', text().encode('utf-16-le'))
table('utf32', 'NUL byte', text().encode('utf-32'))
table('latin_1', 'not UTF-8', with_row('Müller', '1', 'F').encode('latin-1'))
table('nul_bytes', 'NUL byte in line 5', with_row('P\0', '1', 'F'))
table('cut_in_a_letter', 'not UTF-8', text().encode() + 'ü'.encode()[:1])

# Rows and columns

table('columns_twice', 'more than once', text(head=('id', 'age', 'age')))
table('row_too_long', 'line 5 has 5 cells', with_row('P4', '1', 'F', '', 'x'))
table('row_too_short', READ, with_cells('40'))
table('separators_mixed', 'control characters', text(separator=',') + 'P4\t1\tF\n')
table('quote_never_closed', 'not a table row', text().replace('P2', '"P2'))
table('quote_in_a_cell', 'not a table row', text().replace('P2', '"P"2'))
table('a_field_of_megabytes', 'field larger', with_row('P4', '1', 'x' * 2**20))
table('a_hundred_thousand_columns', "'age'", '\t'.join(map(str, range(10**5))) + '\n1')
table('form_feed_in_a_cell', 'known categories', with_cells('1', 'F\x0cP5'))
table('no_known_column', "'age'", text(head=('a', 'b', 'c')))

# Cells

table('id_twice', 'line 4 already', with_row('P3', '1', 'F'))
table('id_missing', 'no id', with_row('', '1', 'F'))
table('id_is_na', 'no id', with_row('n/a', '1', 'F'))
for _name, _id, _verdict in (
  ('leaves_the_folder', '../P1', 'holds a path'),
  ('is_absolute', '/etc/passwd', 'holds a path'),
  ('of_windows', '..\\P1', 'holds a path'),
  ('is_a_formula', "=cmd|'/C calc'!A0", 'holds a path'),
  ('adds_up', '=1+1', 'formula'),
  ('calls', '@SUM(A1)', 'formula'),
  ('is_a_flag', '-rf', 'formula'),
  ('is_the_folder', '..', 'dot'),
  ('is_very_long', 'P' * 300, 'longer than 200'),
  ('rings_the_bell', 'P\x07\x1b[2J', 'control'),
  ('reads_backwards', 'P\u202e4', 'control'),
):
  table(f'id_{_name}', _verdict, with_row(_id, '1', 'F'))
for _value in ('old', 'inf', '1e999', '=A1', '0x1F', '1' * 5000):
  table(f'age_{_value[:6]}', "column 'age'", with_cells(_value, 'F'))
table('sex_is_a_formula', 'known categories', with_cells('1', '=cmd()'))
table('sex_of_100_kB', 'known categories', with_cells('1', 'F' * 100_000))
table('age_not_a_number', READ, with_cells('NaN', 'F'))

# Paths


def paths(name, verdict, cell):
  rows = [(*row, f'{row[0]}.nii') for row in ROWS]
  rows[0] = (*rows[0][:3], cell)
  content = text(rows, ('id', 'age', 'sex', 'image'))
  table(f'path_{name}', verdict, content)


paths('of_a_device', 'device', '/dev/zero')
paths('of_the_folder', A_FOLDER, '.')
paths('of_a_process', 'cannot be read', '/proc/self/mem')
paths('too_long', 'cannot be read', 'a/' * 3000 + 'P1.nii')
paths('of_no_file', 'does not exist', '../../nowhere.nii')
paths('of_a_user', 'does not exist', '~nobody-of-this-name/P1.nii')


@tree('links_in_a_ring', READ, image='**/{subject}.nii')
def _(root):
  for name in ('a', 'b', 'c'):
    (root / name).mkdir()
    for link in ('d', 'e', 'f'):
      (root / name / link).symlink_to('..')


@tree('folders_very_deep', READ, image='**/{subject}.nii')
def _(root):
  here = root
  for _ in range(150):
    here = here / 'deep'
    here.mkdir()


@tree('one_of_each_kind', 'no file for', image='{subject}/scan.nii')
def _(root):
  (root / 'P1').mkdir()
  os.mkfifo(root / 'P2')


def read(root, options):
  """None, or what is wrong: the layout is read, then every scan of it."""
  from ldm_jax.data.cohorts.attributes import Schema
  from ldm_jax.data.layouts import folder

  schema = Schema.from_config(
    [{'name': 'age', 'low': 0, 'high': 100}, {'name': 'sex', 'categories': 'FM'}]
  )
  cohort = folder.read(root, schema=schema, **options)
  for record in cohort.records:
    record.source.fingerprint()
    record.source.read()
  if [record.patient for record in cohort.records] != [row[0] for row in ROWS]:
    return f'other patients: {[record.patient for record in cohort.records]}'
