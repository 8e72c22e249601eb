"""Writing a model in the opset of training graphs, and training graphs in an older one."""
