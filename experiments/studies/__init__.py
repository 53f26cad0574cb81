"""One file for each table or figure of the README and the docs; each is a command."""
