"""The public import of Netlathe: `from netlathe import Client`."""
