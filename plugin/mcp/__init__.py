"""An MCP server: searches for agents."""
