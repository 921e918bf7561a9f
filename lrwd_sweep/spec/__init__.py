"""The validated request and specification of a study; imports no torch."""
