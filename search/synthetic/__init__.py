"""Problems whose answer is known: synthetic networks, and their recorded evaluations."""
