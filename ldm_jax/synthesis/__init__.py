"""From trained parameters to volumes."""
