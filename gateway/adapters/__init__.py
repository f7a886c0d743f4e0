"""One outside system per file; the only importers of vendor clients."""
