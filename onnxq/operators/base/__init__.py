"""What operators are made of, and what is done with all of them."""
