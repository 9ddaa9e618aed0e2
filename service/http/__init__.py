"""HTTP layer: bodies, errors, paging, uploads, downloads, events and access control."""
