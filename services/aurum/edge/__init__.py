"""The store-and-forward gateway of a plant: takes readings from devices, keeps them, passes them on in order."""
