"""The forms in which data sets arrive: .npz, Parquet, zip. One file a format; nothing is unpickled."""
