"""Private, controllable 3D latent diffusion for medical imaging, in JAX."""

__version__ = '0.1.0'
