"""Programs that generate the dashboard and try faults."""
