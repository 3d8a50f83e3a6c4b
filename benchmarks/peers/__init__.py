"""Other people's libraries doing the same work; each runs in a process, and if need be an environment, of its own."""
