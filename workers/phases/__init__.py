"""The phases of a job, in order: profile, statistics, search, train, verify, package."""
