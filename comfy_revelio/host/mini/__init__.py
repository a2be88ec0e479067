"""Load the bundled model, Revelio Mini."""
