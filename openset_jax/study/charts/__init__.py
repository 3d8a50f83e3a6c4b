"""Tables, figures and the page of an experiment."""
