"""How the model that ships inside was made."""
