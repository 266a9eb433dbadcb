"""What is measured beside a study: a program for each."""
