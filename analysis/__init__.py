"""Statistical analysis of a study: loads its runs, compares the methods, and writes the report."""
