"""Tables and images of the docs, made from what was measured."""
