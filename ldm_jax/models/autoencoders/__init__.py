"""Volumes <-> latents."""
