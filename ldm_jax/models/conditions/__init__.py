"""What a denoiser is told."""
