"""One module per data set; every loader returns the image table of `histotransfer.datasets.table`."""
