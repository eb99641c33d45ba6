"""Sites' privacy ledgers as people read them."""
