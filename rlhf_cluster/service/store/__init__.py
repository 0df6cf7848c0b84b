"""What the service remembers, in SQLite or PostgreSQL. Tables first, then one small file for each thing they hold."""
