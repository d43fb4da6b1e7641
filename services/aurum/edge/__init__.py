"""The store-and-forward gateway of a plant: takes readings from devices, spools and forwards them to ingestion."""
