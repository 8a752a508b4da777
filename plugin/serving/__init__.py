"""What the servers have in common, over HTTP and MCP: worker threads and the limits of connections."""
