"""The summary: one set of facts, shown as a table, as plain text, and as JSON."""
