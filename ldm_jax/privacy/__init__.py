"""Differential privacy with the patient as the unit."""
