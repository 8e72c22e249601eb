"""Reading and writing models: load, save, external data, sparse forms, opset and IR housekeeping."""
