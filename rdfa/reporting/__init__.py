"""Tables from the metrics files of runs."""
