"""What a reading is: columnar batches, the rules that they obey, and the file formats that they come from.

Everybody who speaks the ingestion contract shares this: ingestion, edge gateways, the API, importers, simulators.
"""
