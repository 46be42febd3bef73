"""What a study shows: loads its runs, compares the methods, and writes the report."""
