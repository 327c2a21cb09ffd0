"""What is wrong with a cohort before it is used."""
