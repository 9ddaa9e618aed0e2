"""What a device costs: ops to time, the timing protocol, tables, predictors, runtimes, the agent."""
