"""The store-and-forward gateway of a plant: takes readings from devices, spools them, and forwards them to ingestion.
"""
