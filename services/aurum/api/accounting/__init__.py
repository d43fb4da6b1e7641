"""Energy, carbon and water accounts: fetches readings and emission factors, and calls the calculations on them."""
