"""Images: sources, pools, sampling, and the input pipelines of the devices."""
