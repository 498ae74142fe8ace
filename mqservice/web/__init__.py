"""HTTP: parses and refuses, calls one action below, renders. No business rule lives here."""
