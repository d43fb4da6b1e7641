"""Maintenance advice: expected costs of maintaining now, at the next planned stop, or after the failure."""
