"""One module per dataset, each exporting ``make_dataset``; beside them sources of batches and the store of records."""
