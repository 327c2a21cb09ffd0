"""What the autoencoder loses: report/autoencoder.html, before anything builds on it."""

from ldm_jax.report import evidence, page, pictures, sections, tables
from ldm_jax.report.wording import escape, number

SECTIONS = (
  ('pictures', 'Reconstructions', pictures.samples),
  ('reconstruction', 'Fidelity', evidence.reconstruction),
  ('latent', 'Latent', lambda content: latent(content['metrics'])),
  ('training', 'Training', evidence.training),
  ('config', 'Settings', sections.config),
)
NUM_PICTURES = 8


def write(path, name, settings, figures, volumes, events, banner=''):
  """Writes the page.

  Args:
    name: of the config.
    settings: config.autoencoder as a plain dict.
    figures: dict reconstruction, latent, alarms, codebook (see
      `fit_autoencoder.report`).
    volumes: real and reconstructed (n,d,h,w), of public patients.
    events: of the log.
    banner: as of `page.write`.
  """
  real, reconstructed = (v[:NUM_PICTURES] for v in volumes)
  content = {
    'title': f'{name}: autoencoder',
    'subtitle': 'Public scans it was trained on, and what comes back of them',
    'banner': banner,
    'config': settings,
    'metrics': figures,
    'log': [e for e in events if e.get('stage') in ('perceptual', 'autoencoder')],
    'images': {'real': real, 'reconstructed': reconstructed},
  }
  page.write(path, content, SECTIONS)


def latent(figures):
  """Statistics of each channel, use of the codebook, alarms -> HTML."""
  found = figures['latent']
  channels = zip(found['mean'], found['std'], strict=True)
  rows = [(str(i), number(mean), number(std)) for i, (mean, std) in enumerate(channels)]
  parts = [tables.table(('Channel', 'Mean', 'Standard deviation'), rows)]
  if 'codebook' in figures:
    used = figures['codebook']
    parts.append(
      f'<p>{used["used"]} of {used["codes"]} codes are used, as evenly as '
      f'{number(used["perplexity"])} codes used alike would be (perplexity).</p>'
    )
  alarms = [
    f'<li>step {event.get("step")}: {escape(event["alarm"])}</li>'
    for event in figures['alarms']
  ]
  alarms = f'<ul>{"".join(alarms)}</ul>' if alarms else '<p>No alarm was raised.</p>'
  return ''.join(parts) + '<h3>Alarms</h3>' + alarms
