"""Scoring: what samples' scores say about one network, or about two compared, with intervals."""
