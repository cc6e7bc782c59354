"""One module a data set; every loader returns the image table of `histotransfer.datasets.table`."""
