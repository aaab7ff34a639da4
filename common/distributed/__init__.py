"""Several workers: what starts them, what each does, what watches them."""
