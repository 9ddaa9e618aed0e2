"""Readers of the data set formats .npz, Parquet and zip, one file each; none unpickles anything."""
