"""Printed tables and the page `report.html` of a run."""
