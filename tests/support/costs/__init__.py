"""What a request costs the service that answers it, and the largest request of each route and RPC."""
