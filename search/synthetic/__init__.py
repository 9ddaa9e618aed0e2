"""Problems with a known optimum: synthetic networks and their evaluations."""
