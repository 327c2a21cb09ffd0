"""Requested attributes as rows of a table."""

import csv


def row(schema, vector):
  """{name: value as a table writes it} of encoded attributes (k,); '' for unknown."""
  decoded = schema.decode(vector)
  return {
    name: ''
    if value is None
    else round(value, 4)
    if isinstance(value, float)
    else value
    for name, value in decoded.items()
  }


def write_table(path, rows):
  """Writes dicts of the same keys as CSV."""
  with open(path, 'w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
