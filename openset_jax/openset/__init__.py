"""Open-set recognition as pure functions of arrays: no config, no files, no devices."""
