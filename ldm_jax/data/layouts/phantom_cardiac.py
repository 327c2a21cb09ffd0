"""The cardiac phantom as a layout: no files, the options are its parameters."""

from __future__ import annotations

from typing import Any

from ldm_jax.data.about import About
from ldm_jax.data.attributes import Schema
from ldm_jax.data.cohort import Cohort
from ldm_jax.data.layouts import procedural
from ldm_jax.data.phantom import cardiac

ABOUT = About(
  title='Procedural cardiac phantom: short-axis stacks with exact masks and volumes',
  homepage='',
  citation="""@software{ldm_jax,
  title={{ldm\\_jax}: private, controllable {3D} latent diffusion for medical imaging},
  author={{The ldm\\_jax authors}},
  year={2026},
}""",
  licence='Apache-2.0',
  instructions='',  # made, not downloaded
)


def read(root: str = '', schema: Schema | None = None, **options: Any) -> Cohort:
  """Draws the cohort; `options` are those of `phantom.cardiac.cohort`.

  `schema` selects and re-ranges attributes by name; the default has all 14.

  Raises:
    ValueError: an unknown option, or an attribute the phantom does not have.
  """
  del root
  return procedural.read('phantom_cardiac', cardiac.cohort, schema, options)


def population(num: int, seed: int, /, **options: Any) -> list[dict[str, Any]]:
  """Attributes of `num` new patients, from the constants of the phantom's site.

  `options` are those of `read`; a seed among them belongs to the cohort, not to this
  draw, hence the positional arguments.
  """
  draw = cardiac.population
  return procedural.population('phantom_cardiac', draw, num, seed, options)
