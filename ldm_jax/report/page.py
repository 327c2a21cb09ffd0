"""The report: one HTML file that needs nothing else, readable anywhere, printable."""

import pathlib

from ldm_jax import atomic
from ldm_jax.report import evidence, pictures, sections, style
from ldm_jax.report.privacy_statement import lot, statement
from ldm_jax.report.wording import escape

SECTIONS = (
  ('summary', 'Summary', sections.summary),
  ('samples', 'Samples', pictures.samples),
  ('control', 'Control', evidence.control),
  ('quality', 'Image quality', evidence.quality),
  ('memorisation', 'Memorisation', evidence.memorisation),
  ('reconstruction', 'Reconstruction', evidence.reconstruction),
  ('counterfactuals', 'Counterfactuals', pictures.counterfactuals),
  ('training', 'Training', evidence.training),
  ('privacy', 'Privacy statement', sections.privacy),
  ('config', 'Settings', sections.config),
)
# The browser itself refuses anything that is not part of the page.
POLICY = (
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
  "script-src 'unsafe-inline'"
)


def write(path, content, sections=SECTIONS):
  """Writes the report atomically and returns its path.

  Args:
    path: file to write; its folder is created.
    content: dict, every key optional:
      title: headline; subtitle: line below it.
      banner: sentence in red above everything; by default that of a privacy.json of
        a demonstration split.
      models: dict 'samples' | 'counterfactuals' -> the model that made them.
      config: dict of settings. metrics: metrics.json. privacy: privacy.json or None.
      requests: whose attribute values the samples' requests are, 'origin: sentence'.
      log: list of events {'stage', 'step', 'loss', ...}.
      images: dict real, reconstructed, synthetic (n,d,h,w); sweeps {attribute:
        (values (n,), volumes (n,d,h,w))}; counterfactuals [(source, counterfactual,
        difference, text)] of (d,h,w); internal: names among these that show scans
        of private patients.
      control: {attribute: (requested (n,), measured (n,))}.
    sections: (key, name, content -> HTML) of each section.

  Raises:
    OSError: when the file cannot be written.
    ValueError: for images of an unusable shape.
  """
  path = pathlib.Path(path)
  atomic.write_text(path, page(content, sections))
  return path


def page(content, sections=SECTIONS):
  """The report as text: content as in `write` -> HTML document."""
  content = {**content, 'statement': statement(content.get('privacy'))}
  banner = escape(content.get('banner') or lot(content.get('privacy')))
  banner = f'<div class="banner" role="alert">{banner}</div>' if banner else ''
  title = escape(content.get('title') or 'ldm_jax report')
  subtitle = escape(
    content.get('subtitle') or 'Synthetic cohort: samples, evidence and privacy'
  )
  links = ''.join(f'<li><a href="#{key}">{name}</a></li>' for key, name, _ in sections)
  body = ''.join(
    f'<section id="{key}"><h2>{name}</h2>{render(content)}</section>'
    for key, name, render in sections
  )
  return (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    f'<title>{title}</title><style>{style.STYLE}</style></head><body>'
    f'{banner}'
    f'<header><h1>{title}</h1><p class="muted">{subtitle}</p></header>'
    f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>{body}</main>'
    '<footer>Written by ldm_jax. Research software: samples and measurements are not '
    f'for diagnosis.</footer><script>{style.SCRIPT}</script></body></html>\n'
  )
