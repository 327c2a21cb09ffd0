"""What every layout states about its data set: source, citation, licence."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class About:
  """Facts about a data set that are stored with every copy of it.

  Attributes:
    title: one line.
    homepage: where to register and download; '' for a user's own files.
    citation: BibTeX of the paper to cite; '' for a user's own files.
    licence: name of the licence, or the terms of access.
    instructions: what the folder must hold; its first words name what to download.
    version: of the records; raised when the layout reads the files in another way.
  """

  title: str
  homepage: str
  citation: str
  licence: str
  instructions: str
  version: str = '1.0.0'
