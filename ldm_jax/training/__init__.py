"""Train states, the loop, and what is learned."""
