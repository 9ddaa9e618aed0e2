"""The costs of a device: ops to time, the timing protocol, tables, predictors, runtimes and the agent."""
