"""The real server, its database, and what is put between."""
