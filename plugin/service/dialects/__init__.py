"""The APIs that the service answers, one file for each: a dialect is what one family of clients sends and reads."""
