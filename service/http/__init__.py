"""HTTP: bodies, errors, paging, uploads, downloads, events and access."""
