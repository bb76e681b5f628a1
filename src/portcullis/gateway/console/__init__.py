"""The console: what an SMS asks through the API, for people, as pages (docs/console.md)."""
