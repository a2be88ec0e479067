"""Make the tables and images in the docs from measured metrics."""
