"""The parts of the report: each module gathers or computes what one section of the page shows."""
