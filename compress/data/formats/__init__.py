"""Readers of the data set formats .npz, Parquet and zip, each in its own file. No reader unpickles anything."""
