"""Sample orders, and the script that makes them."""
