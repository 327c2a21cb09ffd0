"""Tables of attributes."""
