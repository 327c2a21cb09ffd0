"""What every layout says about its data set: whose it is, what may be done with it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class About:
  """Facts about a data set that travel with every copy of it.

  Attributes:
    title: one line.
    homepage: where to register and download; '' for a user's own files.
    citation: BibTeX of the paper to cite; '' for a user's own files.
    licence: name of the licence, or the words under which access is given.
    instructions: what the folder must hold; its first words name what to download.
    version: of what the layout makes of the files; raised when that changes.
  """

  title: str
  homepage: str
  citation: str
  licence: str
  instructions: str
  version: str = '1.0.0'
