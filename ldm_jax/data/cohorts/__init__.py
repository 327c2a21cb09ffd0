"""Patients, their scans and what is known of them."""
