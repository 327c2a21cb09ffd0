"""Layouts: how a data set lies on disk -> Cohort."""
