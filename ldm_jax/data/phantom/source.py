"""Sources of phantoms: scans that are rendered when they are read."""

import dataclasses
import hashlib
import json

from ldm_jax.data.readers import volume


class Rendered:
  """A frozen dataclass of all that a scan depends on, but for the code's `version`.

  It has `rendered()`: an image and labels, (d, h, w) each, and their affine.
  """

  def read(self):
    """(Volume of the image, Volume of the labels), (d, h, w) each."""
    rendered = self.rendered()
    return tuple(
      volume.Volume(array, rendered.affine)
      for array in (rendered.image, rendered.labels)
    )

  def fingerprint(self):
    """Hash of everything the scan depends on; needs no rendering."""
    content = json.dumps([self.version, dataclasses.asdict(self)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


class Intervened(Rendered):
  """One whose `attributes`, (name, value) pairs, may be set to others."""

  def counterfactual(self, changes):
    """Source of the true counterfactual under changed attributes: name -> value."""
    changed = {**dict(self.attributes), **changes}
    return dataclasses.replace(self, attributes=tuple(sorted(changed.items())))
