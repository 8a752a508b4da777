"""Documents that another engine found, in the order of MaxSim."""
