"""Reading and writing models: load, save, external data, sparse forms, opsets and IR versions."""
