"""Which order of dimensions each tensor is kept in: rules for moving Transposes through operators, and the choice."""
