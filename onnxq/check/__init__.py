"""Pre-flight: what a target would reject in a model or leave in float, and the fix."""
