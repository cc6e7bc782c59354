"""Networks for users: prediction, export, and the network that ships."""
