"""The real server, its database, and proxies between them."""
