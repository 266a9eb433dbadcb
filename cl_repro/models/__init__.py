"""Networks: one factory per file, each returning a `Net`."""
