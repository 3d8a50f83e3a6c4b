"""The same work by other libraries; each script runs in a process of its own, and may have an environment of its own."""
