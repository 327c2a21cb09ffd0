"""Data sets whose anatomy, volumes and attributes are known exactly."""
