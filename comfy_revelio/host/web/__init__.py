"""The routes and files that the pack serves to the browser."""
