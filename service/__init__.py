"""The parts that people use: REST, dashboard, store, conductor, command line."""
