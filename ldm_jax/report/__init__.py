"""Figures, the HTML report and the statements people read."""
