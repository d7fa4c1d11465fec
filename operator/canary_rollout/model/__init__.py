"""The resource: spec, status, units, revisions, reasons. Knows nothing of the other rooms."""
