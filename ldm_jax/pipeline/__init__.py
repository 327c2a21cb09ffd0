"""What the stages call, in the order in which they call it."""
