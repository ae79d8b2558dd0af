"""Hardware targets as data, one TOML file each, and their schema."""
