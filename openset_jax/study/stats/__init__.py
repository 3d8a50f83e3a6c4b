"""Statistics over the runs of an experiment."""
