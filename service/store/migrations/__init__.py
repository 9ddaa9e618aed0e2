"""Migrations: one file per step in `versions/`, run by service.store.migrate."""
