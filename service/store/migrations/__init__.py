"""Migrations: one file a step under `versions/`, run by service.store.migrate."""
