"""Resources of the REST contract, one file each."""
