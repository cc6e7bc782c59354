"""SE-DenseNet, its squeeze-and-excitation gates, and where its ImageNet weights come from."""
