"""What is read of results: rows, arms and their names, settings of a study."""
