"""The LanceDB table: schema, codec, conditions, full text, changes."""
