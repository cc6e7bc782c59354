"""SE-DenseNet, its squeeze-and-excitation gates, and the sources of its ImageNet weights."""
