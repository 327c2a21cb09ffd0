"""Evidence: how good, how controllable, how private a cohort is."""
