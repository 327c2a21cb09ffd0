"""Networks that judge volumes."""
