"""The engine: one pack of lanes on a device, from its first step to its last."""
