"""The book: how it is built, what its chapters share, its exercises, and the course made from it."""
