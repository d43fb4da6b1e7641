"""What the gateway listens to beside gRPC: a module for each protocol, one way to the spool for all of them."""
