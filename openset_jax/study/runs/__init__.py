"""The runs (arms) of an experiment."""
