"""What people touch: REST, dashboard, store, conductor, command line."""
