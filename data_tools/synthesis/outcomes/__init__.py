"""What became of a row: filters, the one function that says what it needs next, the export and the report."""
