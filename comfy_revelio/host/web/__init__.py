"""What the browser is served."""
