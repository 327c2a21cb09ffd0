"""A config is data: default values, rules, presets, ablations."""
