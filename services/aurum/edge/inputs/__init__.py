"""The gateway's inputs besides gRPC: a module for each protocol, and one way into the spool for all of them."""
